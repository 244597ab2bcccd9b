/**
 * Registers tests that need more than Node, or prints that they are skipped. With `PORTMAPPER_REQUIRE_LAB=1` they
 * fail instead, so that a pipeline which must run them cannot pass without; only a kernel without SCTP is excused.
 */
import { describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { labNeeds, lacking, type Need, needsText } from "./Capabilities.ts"

declare module "vitest" {
  interface TaskMeta {
    /** Why a test is skipped. */
    lacks?: ReadonlyArray<Need>
  }
}

/** Every need includes those of a lab. */
export const describeLab = (title: string, needs: ReadonlyArray<Need>, tests: () => void): void =>
  describeNeeding(title, [...labNeeds, ...needs], tests)

export const describeNeeding = (title: string, needs: ReadonlyArray<Need>, tests: () => void): void => {
  const lacks = lacking(needs)
  describe(title, lacks.length === 0 ? tests : () => skip(title, needsText(lacks), lacks))
}

export const testNeeding = (
  title: string,
  needs: ReadonlyArray<Need>,
  run: () => Promise<void> | Effect.Effect<void, unknown, Scope.Scope>
): void => {
  const lacks = lacking(needs)
  const live = () => {
    const running = run()
    return Effect.isEffect(running) ? running : Effect.promise(() => running)
  }
  if (lacks.length === 0) it.live(title, live)
  else skip(title, `${title}: ${needsText(lacks)}`, lacks)
}

const skip = (title: string, text: string, lacks: ReadonlyArray<Need>): void => {
  const isExcused = lacks.every((need) => need === "sctp")
  if (process.env["PORTMAPPER_REQUIRE_LAB"] === "1" && !isExcused)
    it(text, () => {
      throw new Error(`${title} ${needsText(lacks)}, and PORTMAPPER_REQUIRE_LAB=1 allows no skipping`)
    })
  else {
    process.stderr.write(`SKIPPED: ${title} ${needsText(lacks)}\n`)
    it.skip(`SKIPPED: ${text}`, { meta: { lacks } }, () => {})
  }
}
