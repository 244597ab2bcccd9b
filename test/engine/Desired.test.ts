import { assert, describe, it } from "@effect/vitest"
import { attachment, container, desired } from "./containers.ts"

const publish = (text: string) => ({ "portmapper.publish": text })

describe("desired groups", () => {
  it("are none, and no problem, where what the container's image asks for is all there is", () => {
    assert.deepStrictEqual(desired(container("web"), { "portmapper.alow": "10.0.0.0/8" }), {
      groups: [],
      problems: []
    })
  })

  it("keep their keys under another name and with another address of the container", () => {
    const moved = container("site", {
      id: container("web").id,
      attachments: [attachment("bridge", "172.17.0.30")]
    })
    assert.deepStrictEqual(
      desired(moved, publish("127.0.0.1:8080:82")).groups.map(({ key }) => key),
      desired(container("web"), publish("127.0.0.1:8080:82")).groups.map(({ key }) => key)
    )
  })

  it("are none of a container of which any label is wrong", () => {
    const { groups, problems } = desired(container("web"), { ...publish("80"), "portmapper.allow": "all" })
    assert.deepStrictEqual(groups, [])
    assert.deepStrictEqual(
      problems.map(({ name, publish }) => [name, publish]),
      [["web", undefined]]
    )
  })

  it("are none of a container that asks for more ports than there are, however it writes that", () => {
    const ranges = publish(Array.from({ length: 900 }, () => "1-65535:1-65535").join(","))
    const { groups, problems } = desired(container("web"), ranges)
    assert.deepStrictEqual(groups, [])
    assert.deepStrictEqual(
      problems.map(({ name, detail }) => `${name}: ${detail}`),
      ["web: portmapper.publish: must be at most 65536 container ports in all (there are 58981500)"]
    )
  })
})
