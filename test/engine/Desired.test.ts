import { assert, describe, it } from "@effect/vitest"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { attachment, container, desired } from "./containers.ts"

const publish = (text: string) => ({ "portmapper.publish": text })

describe("desired groups", () => {
  it("are none, without a problem, where no label asks for any", () => {
    assert.deepStrictEqual(desired(container("web"), { "portmapper.allow": "10.0.0.0/8" }), {
      groups: [],
      problems: []
    })
  })

  it("keep their keys when the container is renamed or gets another address", () => {
    const moved = container("site", {
      id: container("web").id,
      attachments: [attachment("bridge", "172.17.0.30")]
    })
    assert.deepStrictEqual(
      desired(moved, publish("127.0.0.1:8080:82")).groups.map(({ key }) => key),
      desired(container("web"), publish("127.0.0.1:8080:82")).groups.map(({ key }) => key)
    )
  })

  it("are none for a container with any wrong label", () => {
    const { groups, problems } = desired(container("web"), { ...publish("80"), "portmapper.allow": "all" })
    assert.deepStrictEqual(groups, [])
    assert.deepStrictEqual(
      problems.map(({ name, publish }) => [name, publish]),
      [["web", undefined]]
    )
  })

  it("are none for a container that asks for too many ports, in any spelling", () => {
    const ranges = publish(Array.from({ length: 900 }, () => "1-65535:1-65535").join(","))
    const { groups, problems } = desired(container("web"), ranges)
    assert.deepStrictEqual(groups, [])
    assert.deepStrictEqual(
      problems.map(({ name, detail }) => `${name}: ${detail}`),
      ["web: portmapper.publish: must be at most 65536 container ports in all (there are 58981500)"]
    )
  })

  it("bind where the container's network says, unless the label has an address", () => {
    const bound = (text: string, hostBinding?: string) => {
      const binding = hostBinding === undefined ? undefined : addressUnsafe(hostBinding)
      const attachments = [attachment("front", "172.18.0.2", { hostBinding: binding })]
      const { groups } = desired(container("web", { attachments, networkMode: "front" }), publish(text))
      return groups.flatMap(({ group }) => group.entries.map(({ host }) => host.text))
    }
    assert.deepStrictEqual(bound("80"), ["0.0.0.0", "::"])
    assert.deepStrictEqual(bound("80", "0.0.0.0"), ["0.0.0.0", "::"])
    assert.deepStrictEqual(bound("80", "127.0.0.1"), ["127.0.0.1"])
    assert.deepStrictEqual(bound("80", "::1"), ["::1"])
    assert.deepStrictEqual(bound("0.0.0.0:8080:80", "127.0.0.1"), ["0.0.0.0"])
  })
})
