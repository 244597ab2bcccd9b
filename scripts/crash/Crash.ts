/**
 * The real plugin in a lab, killed at random moments while clients map and unmap, and restarted on the same state.
 * After each start the harness compares everything observable of it with what was answered.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Exit } from "effect"
import { Random } from "../../src/testing/Random.ts"
import * as Lab from "../../test/lab/Lab.ts"
import * as Plugin from "../../test/lab/Plugin.ts"
import { claim } from "./Claims.ts"
import { differences, list } from "./Compare.ts"
import { faultyLife, faultyProgram } from "./FaultyLife.ts"
import { Ledger } from "./Ledger.ts"
import { echoes } from "./Traffic.ts"
import { employ, kill, start, Tally, type World } from "./World.ts"

export interface CrashOptions {
  readonly seed: number
  readonly kills: number
  /** No further kill begins after this time, unless failures are injected and none has reached a client yet. */
  readonly withinMillis?: number
  /** The program that Node runs; the sources by default. */
  readonly program?: ReadonlyArray<string>
  /** Runs the plugin from these sources over services that fail at random; see `Faults`. */
  readonly faults?: boolean
  readonly onKill?: (tally: Tally) => void
}

export const crash = Effect.fn("crash")(function* (options: CrashOptions) {
  const random = new Random(options.seed)
  const lab = yield* Lab.make()
  yield* echoes(lab)
  const folder = yield* Plugin.temporaryFolder
  const tally = new Tally()
  const begun = performance.now()
  const faults = options.faults === true
  const world: World = {
    lab,
    folder,
    ledger: new Ledger(),
    tally,
    random,
    program: faults ? faultyProgram : options.program,
    arguments: () => (faults ? ["--seed", `${random.below(2 ** 31)}`] : []),
    startMillis: { usual: 1000 }
  }
  const timeIsUp = () =>
    performance.now() - begun > (options.withinMillis ?? Infinity) && !(faults && tally.failed === 0)
  while (tally.kills < options.kills && !timeIsUp()) {
    if (tally.kills > 0 && random.chance(0.15)) yield* Effect.scoped(killStarting(world))
    else yield* Effect.scoped(faults ? faultyLife(world) : live(world))
    options.onKill?.(tally)
  }
  yield* Effect.scoped(Effect.flatMap(start(world), (plugin) => compare(world, plugin)))
  return tally
})

/** One session: checked, then used by all clients at once until it is killed. */
const live = Effect.fnUntraced(function* (world: World) {
  const { random, startMillis } = world
  const begun = performance.now()
  const plugin = yield* start(world)
  startMillis.usual = performance.now() - begun
  yield* compare(world, plugin)
  const { ended } = employ(world, plugin)
  yield* Effect.promise(() => sleep(5 + 1500 * random.next() ** 2))
  yield* kill(world, plugin.process)
  yield* ended
})

/** A session killed at any moment of its start, or just after. */
const killStarting = Effect.fnUntraced(function* (world: World) {
  const { random, startMillis, tally } = world
  const after = random.next() * startMillis.usual
  let killed = false
  const exit = yield* Effect.exit(
    start(world, (running) => {
      setTimeout(() => {
        killed = Effect.runSync(running.kill("SIGKILL"))
      }, after)
    }).pipe(Effect.flatMap(({ process }) => process.wait({ timeoutMillis: 60_000 })))
  )
  if (!killed && Exit.isFailure(exit)) yield* exit
  tally.kills++
  tally.killedStarting++
})

/** Checks everything observable, and claims the mappings that no answer named. */
const compare = Effect.fnUntraced(function* (world: World, plugin: Plugin.Plugin) {
  const { lab, ledger, tally } = world
  const listed = yield* list(plugin)
  ledger.settle(listed)
  const { lost, doubled } = yield* differences(lab, plugin, ledger, listed)
  tally.lost.push(...lost.map((text) => `${tally.kills}: ${text}`))
  tally.doubled.push(...doubled.map((text) => `${tally.kills}: ${text}`))
  yield* claim(world, plugin, listed)
})
