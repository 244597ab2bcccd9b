import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { Attachment } from "../../adapters/engine/Engine.ts"
import { attachmentOf, findContainer } from "../../adapters/engine/Placement.ts"
import { addressOrFailure, attachment, container } from "./containers.ts"

const web = container("web", { id: "ab12".padEnd(64, "0") })
const db = container("db", { id: "ab34".padEnd(64, "0") })
const found = (text: string) =>
  Result.match(findContainer(text, [web, db]), {
    onSuccess: ({ name }) => name,
    onFailure: (failure) => failure
  })

describe("a container argument", () => {
  it("matches its name, its id, or a unique prefix of the id", () => {
    assert.deepStrictEqual(["web", db.id, "ab1", "ab", "abx", "nothing"].map(found), [
      "web",
      "db",
      "web",
      "ab matches the ids of several containers: web, db",
      "no such container: abx",
      "no such container: nothing"
    ])
  })
})

describe("a container in several networks", () => {
  const noLabels = new Map<string, string>()
  const inNetwork = (network?: string) =>
    network === undefined ? noLabels : new Map([["portmapper.network", network]])
  const attachments = [attachment("back", "10.0.0.2"), attachment("app", "10.1.0.2")]
  const one = container("one", { attachments, networkMode: "back" })
  const reached = (network?: string) => addressOrFailure(attachmentOf(one, inNetwork(network), [one]))

  it("is reached in the requested network, else in the first by name", () => {
    assert.strictEqual(reached("app"), "10.1.0.2")
    assert.strictEqual(reached("id-of-app"), "10.1.0.2")
    assert.strictEqual(reached(), "10.1.0.2")
    assert.strictEqual(
      reached("front"),
      "portmapper.network=front: it has no address in that network; its networks are app, back"
    )
  })

  it("is reached in the network of its default route", () => {
    const reachedIn = (...of: ReadonlyArray<Attachment>) =>
      Result.getOrThrow(attachmentOf({ ...one, attachments: of }, noLabels, [one])).network.name
    const inner = (gatewayPriority: number) =>
      attachment("inner", "10.2.0.2", { internal: true }, { gatewayPriority })
    const last = attachment("last", "10.3.0.2")
    assert.strictEqual(reachedIn(inner(0), last), "last")
    assert.strictEqual(reachedIn(inner(5), last), "last")
    assert.strictEqual(reachedIn(last, attachment("first", "10.4.0.2", {}, { gateways: 0 })), "last")
    assert.strictEqual(reachedIn(attachment("first", "10.4.0.2"), { ...last, gateways: 3 }), "last")
    const preferred = attachment("middle", "10.5.0.2", {}, { gatewayPriority: 1 })
    assert.strictEqual(
      reachedIn(attachment("first", "10.4.0.2"), preferred, { ...last, gateways: 3 }),
      "middle"
    )
  })

  it("is reached at the container whose network it shares", () => {
    const side = container("side", { networkMode: `container:${one.id}`, attachments: [] })
    assert.strictEqual(addressOrFailure(attachmentOf(side, noLabels, [one, side])), "10.1.0.2")
    const nested = container("nested", { networkMode: `container:${side.id}`, attachments: [] })
    assert.strictEqual(
      addressOrFailure(attachmentOf(nested, noLabels, [one, side, nested])),
      "it shares a shared network"
    )
  })

  const relayed = new Map([["portmapper.mode", "proxy"]])
  const reachedIn = (labels: ReadonlyMap<string, string>, ...of: ReadonlyArray<Attachment>) =>
    addressOrFailure(attachmentOf({ ...one, attachments: of }, labels, [one]))

  it("is reached in an internal network only by the relay", () => {
    const inner = attachment("inner", "10.2.0.2", { internal: true })
    const refused =
      "its network inner is internal, so only the host reaches it: connect it to another bridge network, too, or let the relay serve it (portmapper.mode=proxy)"
    assert.strictEqual(reachedIn(noLabels, inner), refused)
    assert.strictEqual(reachedIn(inNetwork("inner"), inner, attachment("app", "10.1.0.2")), refused)
    assert.strictEqual(reachedIn(relayed, inner), "10.2.0.2")
  })

  it("is reached only by the relay on a bridge where its default route bypasses the host", () => {
    for (const driver of ["macvlan", "ipvlan", "overlay"]) {
      const direct = attachment("direct", "10.6.0.2", { driver })
      const refused = `its network direct (${driver}) bypasses the host: connect it to a bridge network, too, and route its default route there; the relay reaches it by any bridge network (portmapper.mode=proxy)`
      assert.strictEqual(reachedIn(noLabels, direct), refused)
      assert.strictEqual(reachedIn(relayed, direct), refused)
      const behind = attachment("last", "10.3.0.2")
      assert.strictEqual(reachedIn(noLabels, direct, behind), refused)
      assert.strictEqual(reachedIn(relayed, direct, behind), "10.3.0.2")
      assert.strictEqual(reachedIn(noLabels, direct, attachment("app", "10.1.0.2")), "10.1.0.2")
    }
  })
})
