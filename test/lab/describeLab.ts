/**
 * Registers tests that need more than Node, or says loudly that they are skipped. With `PORTMAPPER_REQUIRE_LAB=1` they
 * fail instead, so that a pipeline which should run them cannot pass without; a kernel without SCTP alone is excused.
 */
import { describe, it } from "@effect/vitest"
import { capabilities, missing, type Need } from "./Capabilities.ts"

/** Every need includes `lab`. */
export const describeLab = (title: string, needs: ReadonlyArray<Need>, tests: () => void): void => {
  const lacking = missing(["lab", ...needs.filter((need) => need !== "lab")])
  if (lacking.length === 0) return void describe(title, tests)
  const words = `needs ${lacking.join(" and ")}`
  const excused = lacking.every((word) => word === capabilities().sctp)
  describe(title, () => {
    if (process.env["PORTMAPPER_REQUIRE_LAB"] === "1" && !excused)
      it(words, () => {
        throw new Error(`${title} ${words}, and PORTMAPPER_REQUIRE_LAB=1 allows no skipping`)
      })
    else {
      process.stderr.write(`SKIPPED: ${title} ${words}\n`)
      it.skip(`SKIPPED: ${words}`, () => {})
    }
  })
}
