/**
 * The real plugin in a lab, killed at random instants while clients map and unmap, and started again on the same state.
 * After each start all that can be seen of it is held against what was answered.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { Effect, Exit } from "effect"
import * as Lab from "../../test/lab/Lab.ts"
import * as Plugin from "../../test/lab/Plugin.ts"
import type { Running } from "../../test/lab/Running.ts"
import { claim } from "./Claims.ts"
import { type Calls, clientCount, ephemeral, work } from "./Clients.ts"
import { differences, list } from "./Compare.ts"
import { Ledger } from "./Ledger.ts"
import { Random } from "./Random.ts"
import { echoes } from "./Traffic.ts"

export interface CrashOptions {
  readonly seed: number
  readonly kills: number
  /** No further kill is begun after so long. */
  readonly withinMillis?: number
  /** What Node runs; the sources by default. */
  readonly program?: ReadonlyArray<string>
  readonly onKill?: (tally: Tally) => void
}

export interface Tally {
  kills: number
  /** Kills before the plugin served, in the middle of its restore. */
  killedStarting: number
  /** Calls that were answered, and those that the kill left without an answer. */
  answered: number
  unanswered: number
  /** What was found after a start and no answer had named; nobody's way is blocked by it. */
  unconfirmed: number
  /** Answered, but killed before that was recorded: found unconfirmed, and confirmed by asking again. */
  unrecorded: number
  /** Each with the number of kills before it; none is right. */
  readonly lost: Array<string>
  readonly doubled: Array<string>
  readonly blocking: Array<string>
}

export const crash = Effect.fn("crash")(function* (options: CrashOptions) {
  const random = new Random(options.seed)
  const lab = yield* Lab.make()
  yield* echoes(lab)
  const folder = yield* Plugin.temporaryFolder
  const ledger = new Ledger()
  const tally: Tally = {
    kills: 0,
    killedStarting: 0,
    answered: 0,
    unanswered: 0,
    unconfirmed: 0,
    unrecorded: 0,
    lost: [],
    doubled: [],
    blocking: []
  }
  const begun = performance.now()
  const world: World = { lab, folder, ledger, tally, random, options, startMillis: { usual: 1000 } }
  while (tally.kills < options.kills && performance.now() - begun < (options.withinMillis ?? Infinity)) {
    if (tally.kills > 0 && random.chance(0.15)) yield* Effect.scoped(killStarting(world))
    else yield* Effect.scoped(live(world))
    options.onKill?.(tally)
  }
  yield* Effect.scoped(Effect.flatMap(start(world), (plugin) => compare(world, plugin)))
  return tally
})

interface World {
  readonly lab: Lab.Lab
  readonly folder: string
  readonly ledger: Ledger
  readonly tally: Tally
  readonly random: Random
  readonly options: CrashOptions
  readonly startMillis: { usual: number }
}

const start = Effect.fnUntraced(function* (
  { lab, folder, options }: World,
  onSpawn?: (running: Running) => void
) {
  return yield* Plugin.start(lab.host, {
    folder,
    arguments: ["--ephemeral", `${ephemeral.first}-${ephemeral.last}`],
    startMillis: 60_000,
    ...(options.program === undefined ? {} : { program: options.program }),
    ...(onSpawn === undefined ? {} : { onSpawn })
  })
})

/** One life: looked at, then used by all clients at once until it is killed. */
const live = Effect.fnUntraced(function* (world: World) {
  const { ledger, tally, random, startMillis } = world
  const begun = performance.now()
  const plugin = yield* start(world)
  startMillis.usual = performance.now() - begun
  yield* compare(world, plugin)
  const calls: Calls = { answered: 0, unanswered: 0, refused: [] }
  const workers = Array.from({ length: clientCount }, (_, client) =>
    work(client, plugin.socket, new Random(random.below(2 ** 31)), ledger, calls)
  )
  yield* Effect.promise(() => sleep(5 + 1500 * random.next() ** 2))
  yield* kill(world, plugin.process)
  yield* Effect.promise(() => Promise.all(workers))
  tally.answered += calls.answered
  tally.unanswered += calls.unanswered
  tally.blocking.push(...calls.refused.map((text) => `${tally.kills}: ${text}`))
})

/** A life that ends at any moment of its start, or just after. */
const killStarting = Effect.fnUntraced(function* (world: World) {
  const { random, startMillis, tally } = world
  const after = random.next() * startMillis.usual
  let killed = false
  const exit = yield* Effect.exit(
    start(world, (running) => {
      setTimeout(() => {
        killed = Effect.runSync(running.kill("SIGKILL"))
      }, after)
    }).pipe(Effect.flatMap(({ process }) => process.wait()))
  )
  if (!killed && Exit.isFailure(exit)) yield* exit
  tally.kills++
  tally.killedStarting++
})

const kill = Effect.fnUntraced(function* ({ tally }: World, process: Running) {
  yield* process.kill("SIGKILL")
  yield* process.wait()
  tally.kills++
})

/** All that can be seen of it, and what no answer named gives way. */
const compare = Effect.fnUntraced(function* ({ lab, ledger, tally, random }: World, plugin: Plugin.Plugin) {
  const at = (text: string) => `${tally.kills}: ${text}`
  const listed = yield* list(plugin)
  ledger.settle(listed)
  const { lost, doubled } = yield* differences(lab, plugin, ledger, listed)
  tally.lost.push(...lost.map(at))
  tally.doubled.push(...doubled.map(at))
  const claimed = yield* claim(lab, plugin, ledger, listed, random)
  tally.unrecorded += claimed.unrecorded
  tally.unconfirmed += claimed.unconfirmed
  tally.lost.push(...claimed.lost.map(at))
  tally.blocking.push(...claimed.blocking.map(at))
})
