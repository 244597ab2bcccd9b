import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { rowOf, stateOf } from "./rows.ts"
import { describeInChromium, shown } from "./shown.ts"

const rows = Array.from({ length: 200 }, (_, index) =>
  rowOf(index + 1, { bytesInRate: index, owner: index % 2 === 0 ? "cli" : "watch" })
)

describeInChromium("the list of ports", (it) => {
  it.effect("is moved through by the keyboard, within its ends, and opened by Enter", () =>
    Effect.gen(function* () {
      const { complaints, hashNow, step } = yield* shown(stateOf(rows))
      const press = (key: string) => step((page) => page.keyboard.press(key))
      /** The line that is active, once it is in sight. */
      const isAt = (line: number) =>
        step((page) =>
          page.waitForFunction(`document.querySelector("#line-${line}")?.dataset.active === "true"`)
        )
      yield* step((page) => page.locator('#ports[aria-rowcount="201"]').focus())
      yield* press("ArrowUp")
      yield* isAt(0)
      yield* press("ArrowDown")
      yield* isAt(1)
      yield* press("End")
      yield* isAt(199)
      yield* press("ArrowDown")
      yield* isAt(199)
      yield* press("Home")
      yield* isAt(0)
      yield* press("PageDown")
      yield* step((page) =>
        page.waitForFunction('Number(document.querySelector("[data-active=true]")?.dataset.index) > 10')
      )
      yield* press("PageUp")
      yield* isAt(0)
      yield* press("ArrowDown")
      yield* press("Enter")
      yield* step((page) => page.locator('.port h2:has-text(":8002/tcp")').waitFor())
      assert.include(yield* hashNow, "port=tcp+0.0.0.0%3A8002")
      assert.deepStrictEqual(complaints, [])
    })
  )

  it.effect("counts what the filter finds, and says so where it finds nothing", () =>
    Effect.gen(function* () {
      const { step } = yield* shown(stateOf(rows))
      const found = (text: string) =>
        step((page) =>
          page.waitForFunction(`document.querySelector(".found").textContent === ${JSON.stringify(text)}`)
        )
      yield* step((page) => page.locator("#filter").fill(":8001/tcp"))
      yield* found("1 of 200")
      yield* step((page) => page.locator("#filter").fill("watch"))
      yield* found("100 of 200")
      yield* step((page) => page.locator("#filter").fill("nowhere"))
      yield* found("0 of 200")
      yield* step((page) => page.getByRole("button", { name: "Clear the filter" }).click())
      yield* found("")
    })
  )

  it.effect("is sorted and grouped as one chooses, figures from the greatest down", () =>
    Effect.gen(function* () {
      const { page, step } = yield* shown(stateOf(rows))
      const firstIs = (text: string) => step(() => page.locator(`#line-0:has-text("${text}")`).waitFor())
      const sortBy = (column: string) => step(() => page.locator(`th.${column} button`).click())
      yield* firstIs(":8001/tcp")
      yield* sortBy("traffic")
      yield* firstIs(":8200/tcp")
      yield* sortBy("traffic")
      yield* firstIs(":8001/tcp")
      yield* sortBy("backends")
      yield* step(() => page.locator('th.backends[aria-sort="ascending"]').waitFor())
      yield* sortBy("traffic")
      yield* sortBy("traffic")
      // Where it is too narrow for headings, one chooses from a list, which has not every order.
      yield* step(() => page.setViewportSize({ width: 400, height: 800 }))
      const sort = page.locator(".sort select")
      assert.strictEqual(yield* step(() => sort.locator("option:checked").textContent()), "in another order")
      yield* step(() => sort.selectOption("-since"))
      yield* step(() => page.getByLabel("Group").selectOption("owner"))
      yield* firstIs("cli 100")
      yield* step(() => page.waitForFunction('location.hash === "#sort=-since&group=owner"'))
    })
  )
})
