import { assert, describe, it } from "@effect/vitest"
import { Events } from "../../../adapters/page/app/Events.tsx"
import type { SeenEvent } from "../../../adapters/page/app/model.ts"
import { modelOf } from "../rows.ts"
import { html, plain } from "./rendered.ts"

const event = (id: number, more: Partial<SeenEvent> = {}): SeenEvent => ({
  ...{ id, at: 0, kind: "mapped", text: `port ${id}`, key: null, owner: null, epoch: "a" },
  ...more
})

const shown = (...events: ReadonlyArray<SeenEvent>) => html(Events, { model: { ...modelOf(), events } })

describe("the events", () => {
  it("are listed with the newest first, and say so where there are none", () => {
    const items = [...shown(event(1), event(2)).matchAll(/port \d(?=<\/bdi>)/g)].map(([text]) => text)
    assert.deepStrictEqual(items, ["port 2", "port 1"])
    assert.include(plain(shown()), "None since this plugin started.")
  })

  it("name what happened once, though the text begins with it", () => {
    const text = "took over from process 7: 2 mappings"
    assert.include(plain(shown(event(1, { kind: "tookOver", text }))), "took over from process 7: 2 mappings")
    assert.notInclude(plain(shown(event(1, { kind: "tookOver", text }))), "took over took over")
    // Of a newer plugin.
    assert.include(plain(shown(event(1, { kind: "melted" as never }))), "melted port 1")
  })

  it("lead to their port, if they are of one", () => {
    assert.include(shown(event(1, { key: "tcp a b" })), 'href="#port=tcp+a+b"')
    assert.notInclude(shown(event(1)), "href")
  })
})
