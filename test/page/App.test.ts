import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { hostOf, rowOf, stateOf } from "./rows.ts"
import { describeInChromium, shown } from "./shown.ts"

const key = "tcp 0.0.0.0:8001 172.31.0.2:80"
const chosen = `#port=${new URLSearchParams({ "": key }).toString().slice(1)}`

describeInChromium("the whole page", (it) => {
  it.effect("has its host and the number of what is wrong in its title", () =>
    Effect.gen(function* () {
      const wrong = yield* shown(stateOf([rowOf(1)], { host: hostOf({ problems: 3 }) }))
      yield* wrong.step((page) => page.waitForFunction("document.title === '3 wrong · here · portmapper'"))
    })
  )

  it.effect("opens a port by its link, says so where that is gone, and closes it by Escape and by Back", () =>
    Effect.gen(function* () {
      const { complaints, hashNow, step } = yield* shown(stateOf([rowOf(1)]), chosen)
      yield* step((page) => page.locator('.port h2:has-text("0.0.0.0:8001/tcp")').waitFor())
      yield* step((page) => page.keyboard.press("Escape"))
      yield* step((page) => page.locator(".port").waitFor({ state: "detached" }))
      assert.strictEqual(yield* hashNow, "")
      yield* step((page) => page.goBack())
      yield* step((page) => page.locator('.port h2:has-text("0.0.0.0:8001/tcp")').waitFor())
      yield* step((page) => page.evaluate('location.hash = "#port=gone"'))
      yield* step((page) =>
        page.locator('.port:has-text("gone"):has-text("It is not mapped any more.")').waitFor()
      )
      assert.deepStrictEqual(complaints, [])
    })
  )

  it.effect("goes to the filter by /, and leaves the keys of who types and of the browser alone", () =>
    Effect.gen(function* () {
      const { step } = yield* shown(stateOf([rowOf(1)]), chosen)
      const typed = step((page) => page.locator("#filter").inputValue())
      const focused = step((page) => page.evaluate("document.activeElement.id"))
      yield* step((page) => page.locator(".port").waitFor())
      yield* step((page) => page.keyboard.press("Control+/"))
      assert.notStrictEqual(yield* focused, "filter")
      yield* step((page) => page.keyboard.press("/"))
      assert.deepStrictEqual([yield* focused, yield* typed], ["filter", ""])
      yield* step((page) => page.keyboard.type("a/b"))
      assert.strictEqual(yield* typed, "a/b")
      // Escape empties the filter first, then leaves it, and closes the port only then.
      for (const left of [1, 1, 0]) {
        yield* step((page) => page.keyboard.press("Escape"))
        yield* step((page) => page.waitForFunction(`document.querySelectorAll(".port").length === ${left}`))
      }
    })
  )

  it.effect("shows the list for / where a narrow window shows another part", () =>
    Effect.gen(function* () {
      const { hashNow, page, step } = yield* shown(stateOf([rowOf(1)]), "#pane=events")
      yield* step(() => page.setViewportSize({ width: 400, height: 800 }))
      yield* step(() => page.locator(".events").waitFor())
      yield* step(() => page.keyboard.press("/"))
      yield* step(() => page.waitForFunction('document.activeElement.id === "filter"'))
      assert.strictEqual(yield* hashNow, "")
    })
  )
})
