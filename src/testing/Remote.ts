/**
 * The harness over a transport, or against a real host: the same scripts and the same model, at the speed of the
 * other side. It compares only what is visible, and draws only steps that the target supports.
 */
import { Effect, type Scope } from "effect"
import fc from "fast-check"
import { type Found, shortening } from "./Explore.ts"
import { type Demand, runOn, type Violation } from "./Harness.ts"
import type { ModelHost } from "./Model.ts"
import type { Script } from "./Script.ts"
import { type ScriptOptions, scripts } from "./ScriptArbitrary.ts"
import type { Ended, RemoteTarget, Services } from "./Target.ts"

/** The first violation, or `undefined`. The script may only use what the target supports. */
export const runRemote = Effect.fnUntraced(function* (
  script: Script,
  host: ModelHost,
  target: RemoteTarget
): Effect.fn.Return<Violation | undefined> {
  const running = runOn(script, host)
  let next = running.next()
  while (next.done !== true) next = running.next(yield* meet(next.value, target))
  return next.value
})

export interface ExploreRemoteOptions<E, R> extends ScriptOptions {
  readonly seed: number
  /** The number of scripts. */
  readonly runs: number
  readonly host: ModelHost
  /** Makes a target without mappings for each script; its scope ends with the script. */
  readonly target: Effect.Effect<RemoteTarget, E, R | Scope.Scope>
  /** Runs as soon as a script fails, before it is shrunk. */
  readonly noticed?: () => void
}

/** The shortest failing script found, or `undefined` if none fails. */
export const exploreRemote = Effect.fnUntraced(function* <E, R>({
  seed,
  runs,
  host,
  target,
  noticed,
  ...options
}: ExploreRemoteOptions<E, R>): Effect.fn.Return<Found | undefined, E, R> {
  const fails = (script: Script): Effect.Effect<Violation | undefined, E, R> =>
    Effect.scoped(Effect.flatMap(target, (each) => runRemote(script, host, each)))
  const drawn = fc.sample(scripts(options), { seed, numRuns: runs })
  for (const script of drawn) {
    const violation = yield* fails(script)
    if (violation === undefined) continue
    noticed?.()
    const shorter = shortening(script)
    let next = shorter.next()
    while (next.done !== true) next = shorter.next((yield* fails(next.value)) !== undefined)
    const shortest = next.value
    return { seed, script: shortest, violation: (yield* fails(shortest)) ?? violation }
  }
  return undefined
})

const meet = (demand: Demand, target: RemoteTarget): Effect.Effect<unknown> => {
  switch (demand.want) {
    case "call":
      return Effect.map(target.call(demand.call), (outcome): Ended => ({ outcome, struck: false }))
    case "held":
      return target.held
    case "change":
      return demand.change(servicesOf(target))
  }
}

/** A script that uses more than the target supports is itself wrong. */
const servicesOf = ({ host }: RemoteTarget): Services<Effect.Effect<void>> => {
  const lacking = (what: string) => Effect.die(new Error(`this target can't ${what}`))
  return {
    take: (frontend) => host?.take(frontend) ?? lacking("take a port"),
    free: (frontend) => host?.free(frontend) ?? lacking("free a port"),
    restart: (meanwhile) => host?.restart(meanwhile) ?? lacking("restart"),
    refuse: () => lacking("refuse a change"),
    wait: () => lacking("let time go by")
  }
}
