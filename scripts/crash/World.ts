/** The state of a run of the harness: a lab, the plugin's folder, what was answered, and the faults found. */
import { Effect } from "effect"
import { Random } from "../../src/testing/Random.ts"
import type { Lab } from "../../test/lab/Lab.ts"
import * as Plugin from "../../test/lab/Plugin.ts"
import type { Running } from "../../test/lab/Running.ts"
import { type Calls, clientCount, ephemeral, work } from "./Clients.ts"
import type { Ledger } from "./Ledger.ts"

export class Tally {
  kills = 0
  /** Kills before the plugin served, in the middle of its restore. */
  killedStarting = 0
  /** Calls that were answered, and those that the kill left without an answer. */
  answered = 0
  unanswered = 0
  /** Mappings found after a start that no answer had named; they block no request. */
  unconfirmed = 0
  /** Answered, but killed before the answer was recorded: found unconfirmed, and confirmed by the same request. */
  unrecorded = 0
  /** Calls that failed by an injected error, and starts that did. */
  failed = 0
  failedStarts = 0
  /** How often each kind of call was made to fail. */
  injected: ReadonlyMap<string, number> = new Map()
  /** Faults, each with the number of kills before it. */
  readonly lost: Array<string> = []
  readonly doubled: Array<string> = []
  readonly blocking: Array<string> = []
}

export interface World {
  readonly lab: Lab
  readonly folder: string
  readonly ledger: Ledger
  readonly tally: Tally
  readonly random: Random
  /** The program that Node runs, and its further arguments. */
  readonly program: ReadonlyArray<string> | undefined
  readonly arguments: () => ReadonlyArray<string>
  readonly startMillis: { usual: number }
}

export const start = ({ lab, folder, program, ...world }: World, onSpawn?: (running: Running) => void) =>
  Plugin.start(lab.host, {
    folder,
    arguments: ["--ephemeral", `${ephemeral.first}-${ephemeral.last}`, ...world.arguments()],
    startMillis: 60_000,
    ...(program === undefined ? {} : { program }),
    ...(onSpawn === undefined ? {} : { onSpawn })
  })

export const kill = Effect.fnUntraced(function* ({ tally }: World, process: Running) {
  yield* process.kill("SIGKILL")
  yield* process.wait({ timeoutMillis: 60_000 })
  tally.kills++
})

/** All clients at once; `ended` completes once each has made its last call. */
export const employ = ({ random, ledger, tally }: World, { socket }: Plugin.Plugin) => {
  const calls: Calls = { stopping: false, answered: 0, unanswered: 0, failed: 0, refused: [] }
  const clients = Array.from({ length: clientCount }, (_, client) =>
    work(client, socket, new Random(random.below(2 ** 31)), ledger, calls)
  )
  return {
    stop: () => {
      calls.stopping = true
    },
    ended: Effect.map(
      Effect.promise(() => Promise.all(clients)),
      () => {
        tally.answered += calls.answered
        tally.unanswered += calls.unanswered
        tally.failed += calls.failed
        tally.blocking.push(...calls.refused.map((text) => `${tally.kills}: ${text}`))
      }
    )
  }
}
