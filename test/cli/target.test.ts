import { assert, describe, it } from "@effect/vitest"
import { leadsTo, parseTarget } from "../../adapters/cli/target.ts"
import { listedMapping } from "../support/mappings.ts"

const id = "0123456789ab"

const leads = (container: string, text: string): boolean => {
  const target = parseTarget(text)
  if (target._tag === "Failure") throw new Error(target.failure)
  return leadsTo(listedMapping({ container }), target.success)
}

describe("a backend as users name it", () => {
  it.each([
    [`web-1/${id}`, "web-1", true],
    [`web-1/${id}`, id, true],
    [`web-1/${id}`, id.padEnd(64, "c"), true],
    [id, id, true],
    [`web-1/${id}`, "web", false],
    [`web-1/${id}`, id.slice(0, 11), false],
    ["", "web-1", false],
    // As `watch` lists what it could not publish.
    ["web-1", "web-1", true],
    ["shop-frontend-1", "shop-frontend-1", true],
    ["shop-fronten", "shop-frontend-1", false]
  ])("container %s by %s: %s", (container, text, is) => {
    assert.strictEqual(leads(container, text), is)
  })
})
