import { assert, describe, it } from "@effect/vitest"
import { CniError, cniErrorOf } from "../../adapters/cni/CniError.ts"
import { failed, read } from "../../adapters/cni/Execution.ts"
import { supportedVersions } from "../../adapters/cni/NetworkConfig.ts"
import { bridgeResult, configText, portMappings } from "../support/cni.ts"

const variables = { CNI_CONTAINERID: "c1", CNI_NETNS: "/run/netns/c1", CNI_IFNAME: "eth0" }
const prevResult = bridgeResult("10.88.0.2/16")
const attachment = { containerId: "c1", ifName: "eth0" }

const network = (fields: object = {}) => ({
  ...{ cniVersion: "1.1.0", name: "net", type: "portmapper-cni", socket: "/x/p.sock", prevResult },
  ...portMappings({ hostPort: 8080, containerPort: 80 }),
  ...fields
})

const reading = (command: string, config: object | string, more: object = {}) =>
  read({
    variables: { ...variables, CNI_COMMAND: command, ...more },
    input: () => (typeof config === "string" ? config : configText(config))
  })

/** The outcome without a port mapper. */
const answered = (command: string, config: object | string, more: object = {}) => {
  const found = reading(command, config, more)
  if (found._tag === "Asked") throw new Error("a port mapper is asked")
  const { status, stdout } = found.outcome
  const answer: object | undefined = stdout === "" ? undefined : JSON.parse(stdout)
  return { status: Number(status), answer }
}

/** What a port mapper is asked. */
const task = (command: string, config: object) => {
  const found = reading(command, config)
  if (found._tag === "Answered") throw new Error(found.outcome.stdout)
  assert.deepStrictEqual([found.socket, found.text], ["/x/p.sock", configText(config)])
  return found.task
}

describe("an execution that needs no port mapper", () => {
  it("is VERSION, answered in the version that is asked for, or in the latest, whatever the input", () => {
    assert.deepStrictEqual(answered("VERSION", { cniVersion: "0.4.0" }), {
      status: 0,
      answer: { cniVersion: "0.4.0", supportedVersions }
    })
    const latest = { status: 0, answer: { cniVersion: "1.1.0", supportedVersions } }
    for (const text of ["", "{", "{}", '{"cniVersion":5}', '{"cniVersion":""}', "null"])
      assert.deepStrictEqual(answered("VERSION", text), latest, text)
    const closed = read({
      variables: { CNI_COMMAND: "VERSION" },
      input: () => {
        throw new Error("EBADF")
      }
    })
    assert.deepStrictEqual(closed, reading("VERSION", ""))
  })

  it("is that of a container without ports, which ADD passes on in the configuration's version", () => {
    const bare = network({ runtimeConfig: {} })
    const { cniVersion: _, ...rest } = prevResult
    assert.deepStrictEqual(answered("ADD", bare), {
      status: 0,
      answer: { ...prevResult, cniVersion: "1.1.0" }
    })
    assert.deepStrictEqual(answered("ADD", { ...bare, prevResult: rest }).answer, {
      cniVersion: "1.1.0",
      ...rest
    })
    assert.deepStrictEqual(answered("CHECK", bare), { status: 0, answer: undefined })
  })

  it("is one without a result of a plugin before it, though no port is asked for", () => {
    for (const missing of [undefined, null, 5])
      assert.deepStrictEqual(answered("ADD", network({ prevResult: missing, runtimeConfig: {} })), {
        status: 1,
        answer: {
          cniVersion: "1.1.0",
          code: 7,
          msg: "invalid network configuration",
          details:
            "prevResult is missing: this plugin publishes ports of an interface that a plugin before it in the chain has made"
        }
      })
  })

  it("is a wrong one, refused in the version that is asked for if that is known", () => {
    assert.deepStrictEqual(answered("ADD", "{}", { CNI_CONTAINERID: "" }), {
      status: 1,
      answer: { cniVersion: "1.1.0", code: 4, msg: "required env variables [CNI_CONTAINERID] missing" }
    })
    const old = { cniVersion: "0.3.0", name: "net" }
    assert.deepStrictEqual(answered("CHECK", old).answer, {
      cniVersion: "0.3.0",
      code: 1,
      msg: "config version does not allow CHECK",
      details: "it came with 0.4.0, the configuration is of 0.3.0"
    })
    const unknown = answered("ADD", network({ cniVersion: "9.0.0" })).answer
    assert.deepInclude(unknown, { cniVersion: "1.1.0", code: 1 })
    assert.deepInclude(answered("ADD", "").answer, { cniVersion: "1.1.0", code: 6 })
    assert.deepInclude(answered("STATUS", network({ masqAll: true })).answer, { code: 2 })
  })

  it("is one whose configuration can't be read", () => {
    const unread = read({
      variables: { ...variables, CNI_COMMAND: "ADD" },
      input: () => {
        throw new Error("EBADF: bad file descriptor, read")
      }
    })
    assert.deepStrictEqual(unread, {
      _tag: "Answered",
      outcome: {
        status: 1,
        stdout:
          '{"cniVersion":"1.1.0","code":5,"msg":"reading the network configuration from stdin failed","details":"EBADF: bad file descriptor, read"}\n'
      }
    })
  })
})

describe("an execution that a port mapper is asked for", () => {
  it("has what its command needs", () => {
    const add = task("ADD", network())
    assert.deepInclude(add, {
      ...{ command: "ADD", attachment, netns: "/run/netns/c1", result: prevResult },
      answer: { ...prevResult, cniVersion: "1.1.0" }
    })
    assert.deepInclude(task("CHECK", network()), { command: "CHECK", attachment, result: prevResult })
    assert.deepStrictEqual(task("DEL", network({ prevResult: undefined })), { command: "DEL", attachment })
    const valid = { "cni.dev/valid-attachments": [{ containerID: "c2", ifname: "eth1" }] }
    assert.deepStrictEqual(task("GC", network(valid)), {
      ...{ command: "GC", network: "net" },
      valid: [{ containerId: "c2", ifName: "eth1" }]
    })
    assert.deepStrictEqual(task("STATUS", network()), { command: "STATUS" })
  })
})

describe("a defect", () => {
  it("is reported as JSON like a failure, which stays what it is", () => {
    const known = new CniError(100, "refused", "by the kernel")
    assert.strictEqual(cniErrorOf(known), known)
    const report = (error: unknown) => JSON.parse(failed(cniErrorOf(error), '{"cniVersion":"1.0.0"}').stdout)
    assert.deepStrictEqual(report(new Error("of all things")), {
      ...{ cniVersion: "1.0.0", code: 999, msg: "internal error", details: "of all things" }
    })
    assert.strictEqual(report("a text").details, "a text")
    assert.notProperty(report(new Error("")), "details")
  })
})
