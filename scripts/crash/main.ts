/**
 * `npm run crash -- [--kills N] [--seed N] [--minutes N] [--built] [--faults]`: kills the plugin again and again
 * and checks what was lost. The seed repeats every choice, but not the machine's timing. `--built` runs `dist/`
 * (built first if a source is newer), which starts sooner than the sources; `--faults` also lets services and
 * system calls of the plugin fail at random. Needs root, nftables and iproute2. Exits with status 1 if anything is
 * wrong.
 */
import { spawnSync } from "node:child_process"
import { randomInt } from "node:crypto"
import { parseArgs } from "node:util"
import { Effect } from "effect"
import { crash } from "./Crash.ts"
import type { Tally } from "./World.ts"

const options = {
  kills: { type: "string", default: "1000" },
  seed: { type: "string", default: String(randomInt(2 ** 31)) },
  minutes: { type: "string", default: "Infinity" },
  built: { type: "boolean", default: false },
  faults: { type: "boolean", default: false }
} as const

const given = () => {
  try {
    return parseArgs({ options }).values
  } catch (error) {
    process.stderr.write(
      `crash: ${(error as Error).message}; expected --kills N, --seed N, --minutes N, --built or --faults\n`
    )
    return process.exit(2)
  }
}

const values = given()

if (values.built) {
  const { status } = spawnSync(process.execPath, ["scripts/build/fresh.mjs"], { stdio: "inherit" })
  if (status !== 0) process.exit(1)
}
const program = values.built ? ["dist/bin/portmapper.js"] : ["adapters/cli/main.ts"]
const printed = { wrong: 0 }

const report = (tally: Tally) => {
  const wrong = [
    ...tally.lost.map((text) => `lost, after kill ${text}`),
    ...tally.doubled.map((text) => `doubled, after kill ${text}`),
    ...tally.blocking.map((text) => `blocking, after kill ${text}`)
  ]
  if (wrong.length > printed.wrong) for (const text of wrong) console.log(text)
  printed.wrong = wrong.length
  if (tally.kills % 50 === 0) console.log(summary(tally))
}

const summary = (tally: Tally) => (values.faults ? `${killed(tally)}; ${injected(tally)}` : killed(tally))

const injected = ({ failed, failedStarts, injected }: Tally) =>
  `injected failures: ${[...injected].map(([call, count]) => `${call} ${count}`).join(", ")}; ${failed} calls failed, ${failedStarts} starts`

const killed = (tally: Tally) =>
  `kills ${tally.kills} (${tally.killedStarting} while starting) / answered ${tally.answered} / lost ${tally.lost.length} / doubled ${tally.doubled.length} / blocking ${tally.blocking.length} / unconfirmed ${tally.unconfirmed} (and ${tally.unrecorded} answered but not yet recorded); calls cut short ${tally.unanswered}`

const seed = Number(values.seed)
console.log(`--seed ${seed}`)
const tally = await Effect.runPromise(
  Effect.scoped(
    crash({
      seed,
      kills: Number(values.kills),
      withinMillis: Number(values.minutes) * 60_000,
      program,
      faults: values.faults,
      onKill: report
    })
  )
)
report(tally)
console.log(summary(tally))
process.exit(printed.wrong === 0 ? 0 : 1)
