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

describe("a container that is named", () => {
  it("is found by its name, its id, or a prefix that only it has", () => {
    assert.deepStrictEqual(["web", db.id, "ab1", "ab", "abx", "nothing"].map(found), [
      "web",
      "db",
      "web",
      "ab is the beginning of several containers' ids: web, db",
      "no such container: abx",
      "no such container: nothing"
    ])
  })
})

describe("a container in several networks", () => {
  const attachments = [attachment("back", "10.0.0.2"), attachment("app", "10.1.0.2")]
  const one = container("one", { attachments, networkMode: "back" })
  const reached = (network?: string, more = {}) =>
    addressOrFailure(attachmentOf({ ...one, ...more }, network, [one]))

  it("is reached in the one that is asked for, else in the one that comes first by name", () => {
    assert.strictEqual(reached("app"), "10.1.0.2")
    assert.strictEqual(reached("id-of-app"), "10.1.0.2")
    assert.strictEqual(reached(), "10.1.0.2")
    assert.strictEqual(
      reached("front"),
      "portmapper.network=front: it has no address in that network; its networks are app, back"
    )
  })

  it("is reached in the one that has its default route", () => {
    const reachedIn = (...of: ReadonlyArray<Attachment>) =>
      Result.getOrThrow(attachmentOf({ ...one, attachments: of }, undefined, [one])).network.name
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
    assert.strictEqual(reachedIn(inner(0)), "inner")
  })

  it("is reached where the container is whose network it shares", () => {
    const side = container("side", { networkMode: `container:${one.id}`, attachments: [] })
    assert.strictEqual(addressOrFailure(attachmentOf(side, undefined, [one, side])), "10.1.0.2")
    const nested = container("nested", { networkMode: `container:${side.id}`, attachments: [] })
    assert.strictEqual(
      addressOrFailure(attachmentOf(nested, undefined, [one, side, nested])),
      "it shares a shared network"
    )
  })
})
