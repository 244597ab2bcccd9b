/**
 * Draws scripts from a seed until one fails, and shrinks that one. The same seed draws the same scripts on every
 * machine; the caller says how many, so that the result does not depend on a clock.
 */
import fc from "fast-check"
import { ownPort, run, type Violation } from "./Harness.ts"
import type { ModelHost } from "./Model.ts"
import type { Script, Step } from "./Script.ts"
import { type ScriptOptions, scripts } from "./ScriptArbitrary.ts"
import type { SyncTarget } from "./Target.ts"

export interface ExploreOptions extends ScriptOptions {
  readonly seed: number
  /** The number of scripts. */
  readonly runs: number
  readonly host: ModelHost
  /** Makes a fresh world for each script. */
  readonly target: () => SyncTarget
}

export interface Found {
  readonly seed: number
  readonly script: Script
  readonly violation: Violation
}

/** The shortest failing script found, or `undefined` if none fails. */
export const explore = ({ seed, runs, host, target, ...options }: ExploreOptions): Found | undefined => {
  const fails = (script: Script) => run(script, host, target())
  const details = fc.check(
    fc.property(scripts(options), (script) => fails(script) === undefined),
    { seed, numRuns: runs, verbose: 0 }
  )
  const [script] = details.counterexample ?? []
  if (script === undefined) return undefined
  const shortest = shorten(script, (candidate) => fails(candidate) !== undefined)
  const violation = fails(shortest)
  if (violation === undefined) throw new Error("the same script went wrong once and right once")
  return { seed, script: shortest, violation }
}

/** Removes whatever can be removed, step by step, until nothing can. */
export const shorten = (script: Script, stillFails: (script: Script) => boolean): Script => {
  const shorter = shortening(script)
  let next = shorter.next()
  while (next.done !== true) next = shorter.next(stillFails(next.value))
  return next.value
}

/** The same for a caller that runs the candidates itself: it sends back whether each one still fails. */
export function* shortening(script: Script): Generator<Script, Script, boolean> {
  for (const [index, step] of script.entries()) {
    const without = script.filter((_, other) => other !== index)
    if (yield without) return yield* shortening(without)
    for (const simpler of simplerSteps(step)) {
      const simplified = script.map((each, other) => (other === index ? simpler : each))
      if (yield simplified) return yield* shortening(simplified)
    }
  }
  return script
}

const simplerSteps = (step: Step): ReadonlyArray<Step> => {
  const unfated = "fate" in step && step.fate !== undefined ? [{ ...step, fate: undefined }] : []
  if (step.do === "restart" && step.meanwhile !== undefined) return [{ ...step, meanwhile: undefined }]
  if (step.do === "otherEngine") return [ownPort]
  if (step.do !== "map") return unfated
  return [
    ...unfated,
    ...(Object.keys(step.labels).length > 0 ? [{ ...step, labels: {} }] : []),
    ...(step.reqs.length > 1
      ? step.reqs.map((_, index) => ({ ...step, reqs: step.reqs.filter((_, other) => other !== index) }))
      : []),
    ...(step.owner !== "engine" ? [{ ...step, owner: "engine" }] : [])
  ]
}
