import { assert, describe, it } from "@effect/vitest"
import { CniError } from "../../adapters/cni/CniError.ts"
import { invocationOf, ownerOf } from "../../adapters/cni/Environment.ts"

const variables = {
  CNI_COMMAND: "ADD",
  CNI_CONTAINERID: "c1",
  CNI_NETNS: "/run/netns/c1",
  CNI_IFNAME: "eth0"
}
const attachment = { containerId: "c1", ifName: "eth0" }

const refusal = (more: Readonly<Record<string, string | undefined>>): string => {
  try {
    invocationOf({ ...variables, ...more })
  } catch (error) {
    if (error instanceof CniError) return error.message
  }
  return "accepted"
}

describe("an execution's environment", () => {
  it("has what each command needs, and no more is asked of it", () => {
    assert.deepStrictEqual(invocationOf(variables), { command: "ADD", attachment, netns: "/run/netns/c1" })
    assert.deepStrictEqual(invocationOf({ ...variables, CNI_COMMAND: "DEL", CNI_NETNS: undefined }), {
      command: "DEL",
      attachment
    })
    for (const command of ["GC", "STATUS", "VERSION"] as const)
      assert.deepStrictEqual(invocationOf({ CNI_COMMAND: command }), { command })
  })

  it("is refused with every variable that is missing", () => {
    assert.strictEqual(
      refusal({ CNI_NETNS: "", CNI_IFNAME: undefined }),
      "required env variables [CNI_NETNS,CNI_IFNAME] missing"
    )
    assert.include(refusal({ CNI_COMMAND: "add" }), "CNI_COMMAND=add: must be ADD, DEL")
    assert.include(refusal({ CNI_COMMAND: undefined }), "CNI_COMMAND=: must be ADD, DEL")
  })

  it("is refused with every name that is none", () => {
    for (const CNI_CONTAINERID of ["../x", "-a", "a b", "a/b"])
      assert.include(refusal({ CNI_CONTAINERID }), `CNI_CONTAINERID=${CNI_CONTAINERID}: must be alphanumeric`)
    for (const CNI_IFNAME of ["sixteen-bytes-xx", ".", "..", "a/b", "a:b", "a b"])
      assert.include(refusal({ CNI_IFNAME }), `CNI_IFNAME=${CNI_IFNAME}: must be the name of an interface`)
    assert.match(refusal({ CNI_CONTAINERID: "?", CNI_IFNAME: "/" }), /CNI_CONTAINERID=.*; CNI_IFNAME=/)
  })
})

describe("the owner of an attachment", () => {
  it("is its container and interface", () => assert.strictEqual(ownerOf(attachment), "cni:c1/eth0"))

  it("is a digest of them where they are too long, another one for each", () => {
    const long = "a".repeat(200)
    const owners = ["eth0", "eth1"].map((ifName) => ownerOf({ containerId: long, ifName }))
    for (const owner of owners) assert.match(owner, /^cni:a{40}~[0-9a-f]{32}$/)
    assert.strictEqual(new Set(owners).size, 2)
  })
})
