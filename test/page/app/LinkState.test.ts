import "./english.ts"
import { assert, beforeEach, describe, it, vi } from "@effect/vitest"
import { modelOf } from "../rows.ts"
import { html, plain } from "./rendered.ts"

vi.useFakeTimers({ now: 100_000 })
const { heardAt, link, model } = await import("../../../adapters/page/app/connection.ts")
const { LinkWord, LostNotice, Start } = await import("../../../adapters/page/app/LinkState.tsx")

const notice = () => plain(html(LostNotice, {}))
const lost = (reason: string | undefined, inMillis: number) => {
  link.value = { phase: "lost", reason, retryAt: 100_000 + inMillis }
}

beforeEach(() => {
  link.value = { phase: "connecting" }
  model.value = undefined
})

describe("the state of the link", () => {
  it("is a word for each phase", () => {
    const word = (phase: "connecting" | "live" | "hidden") => {
      link.value = { phase }
      return plain(html(LinkWord, {}))
    }
    assert.deepStrictEqual(
      [word("connecting"), word("live"), word("hidden")],
      ["Connecting", "Live", "Paused"]
    )
    lost(undefined, 0)
    assert.strictEqual(plain(html(LinkWord, {})), "Not live")
  })

  it("says while it is lost how old the page is, and when it is tried again", () => {
    assert.strictEqual(notice(), "")
    model.value = modelOf()
    heardAt.value = 40_000
    lost(undefined, 2_500)
    assert.strictEqual(
      notice(),
      "No connection to the plugin. Does portmapper serve --page run, and is the tunnel to it open? What you see is 60s old. Trying again in 3s.Try now"
    )
    lost("too many pages", -1)
    assert.strictEqual(
      notice(),
      "The plugin refused: too many pages. What you see is 60s old. Trying again …Try now"
    )
  })

  it("is all that the page shows before it knows anything", () => {
    assert.strictEqual(plain(html(Start, {})), "portmapperConnecting to the plugin …")
    lost("too many pages", -1)
    assert.strictEqual(
      plain(html(Start, {})),
      "portmapperThe plugin refused: too many pages. Trying again …Try now"
    )
  })
})
