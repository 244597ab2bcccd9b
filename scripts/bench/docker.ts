/**
 * Published ports of containers on a real Engine: by labels and `serve --watch`, beside `docker run -p` on the same
 * Engine in the same run. Time is what publishing and unpublishing cost beyond a container without ports: for `-p`
 * the extra time of `docker run` and `docker rm`; for labels the time from the Engine's event to the last port.
 * Memory is that of the proxy processes, and the growth of the plugin at the second and later publishing: its
 * one-time compilation and allocation shows in its whole size, printed at the end.
 *
 * Needs root, dockerd, a static busybox, nftables, iptables, and `npm run build`.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect } from "effect"
import { readText } from "../../adapters/node/FileText.ts"
import { startEngine } from "../../test/lab/Containers.ts"
import type { Dockerd } from "../../test/lab/Dockerd.ts"
import type { Namespace } from "../../test/lab/Namespace.ts"
import { check } from "../../test/lab/Process.ts"
import type { Running } from "../../test/lab/Running.ts"
import { proportionalMemory } from "./relaySubjects.ts"
import { after, eventsOf } from "./serviceEvents.ts"
import { median, row } from "./stats.ts"

const executable = Path.resolve(import.meta.dirname, "../../dist/bin/portmapper.js")
/** The number of ports, and of rounds for each: the Engine takes minutes for a thousand. */
const levels = [
  { ports: 100, byLabel: 9, byEngine: 3 },
  { ports: 1_000, byLabel: 9, byEngine: 1 }
]
const bareRounds = 7
const firstPort = 20_000
const patience = { timeoutMillis: 600_000 }

export const run = (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench docker needs root, dockerd and nftables")
  if (!Fs.existsSync(executable)) throw new Error("bench docker needs npm run build")
  return Effect.runPromise(Effect.scoped(compare))
}

const compare = Effect.gen(function* () {
  const { host, dockerd, watch } = yield* startEngine()
  const plugin = yield* watch({ program: [executable] })
  yield* plugin.process.waitForLine("watching the containers", patience)
  const subject: Subject = {
    dockerd,
    host,
    plugin: plugin.process,
    events: yield* eventsOf(dockerd, "type=container")
  }

  const bare: Array<Cost> = []
  for (let round = 0; round < bareRounds; round++) bare.push(yield* engines(subject, []))
  const [start, end] = [
    median(bare.map(({ publish }) => publish)),
    median(bare.map(({ release }) => release))
  ]
  console.log(`a container without ports, p50: docker run ${text(start)}, docker rm ${text(end)}`)
  console.log(row(["beyond it, p50", "publish", "unpublish", "memory", "per port"]))
  for (const { ports, byEngine, byLabel } of levels) {
    const range = `${firstPort}-${firstPort + ports - 1}`
    const [mine, theirs] = [[] as Array<Cost>, [] as Array<Cost>]
    for (let round = 0; round < byLabel; round++) {
      mine.push(yield* ours(subject, `${range}:${range}`))
      if (round >= byEngine) continue
      const cost = yield* engines(subject, ["--publish", `${range}:${range}`])
      theirs.push({ ...cost, publish: cost.publish - start, release: cost.release - end })
    }
    report(ports, medians(mine), medians(theirs))
  }
  console.log(`the plugin as a whole, at last: ${megabytes(proportionalMemory([plugin.process]))}`)
})

const report = (ports: number, mine: Cost, theirs: Cost): void => {
  print(`${ports} ports by label`, mine, ports)
  print(`${ports} ports by -p`, theirs, ports)
  console.log(
    row([
      `${ports} ports, times less`,
      (theirs.publish / mine.publish).toFixed(0),
      (theirs.release / mine.release).toFixed(0),
      (theirs.kilobytes / mine.kilobytes).toFixed(0)
    ])
  )
}

interface Subject {
  readonly host: Namespace
  readonly dockerd: Dockerd
  readonly plugin: Running
  readonly events: Running
}

/** Milliseconds, and the additional kilobytes while the ports are published. */
interface Cost {
  readonly publish: number
  readonly release: number
  readonly kilobytes: number
}

const medians = (costs: ReadonlyArray<Cost>): Cost => ({
  publish: median(costs.map(({ publish }) => publish)),
  release: median(costs.map(({ release }) => release)),
  kilobytes: median(costs.map(({ kilobytes }) => kilobytes))
})

/** The whole time of `docker run` and `docker rm`. */
const engines = Effect.fnUntraced(function* ({ dockerd, host }: Subject, args: ReadonlyArray<string>) {
  const begun = now()
  yield* container(dockerd, args)
  const publish = now() - begun
  const kilobytes = proportionalMemory(yield* proxies(host))
  const ending = now()
  yield* remove(dockerd)
  return { publish, release: now() - ending, kilobytes } satisfies Cost
})

/**
 * The time from the Engine's start event to the last published port, and from its die event to the last released
 * one.
 */
const ours = Effect.fnUntraced(function* ({ dockerd, events, plugin }: Subject, publish: string) {
  const before = proportionalMemory([plugin])
  const published = yield* after(events, "start", plugin, /bench: \d+ ports published/, () =>
    container(dockerd, [`--label=portmapper.publish=${publish}`])
  )
  yield* Effect.sleep("2 seconds")
  const kilobytes = proportionalMemory([plugin]) - before
  const released = yield* after(events, "die", plugin, /bench: \d+ ports released/, () => remove(dockerd))
  return { publish: published, release: released, kilobytes } satisfies Cost
})

const container = (dockerd: Dockerd, args: ReadonlyArray<string>) =>
  cli(dockerd, [
    ...["run", "--detach", "--name=bench", "--stop-signal=KILL", ...args],
    ...["busybox", "/bin/sleep", "3600"]
  ])

const remove = (dockerd: Dockerd) => cli(dockerd, ["rm", "--force", "bench"])

const cli = (dockerd: Dockerd, args: ReadonlyArray<string>) =>
  check("docker", ["--host", `unix://${dockerd.socket}`, ...args], patience)

const proxies = ({ name }: Namespace) =>
  Effect.map(check("ip", ["netns", "pids", name], patience), (pids) =>
    pids
      .split("\n")
      .filter((pid) => pid !== "" && readText(`/proc/${pid}/comm`)?.trim() === "docker-proxy")
      .map((pid) => ({ pid: Number(pid) }))
  )

const print = (title: string, { kilobytes, publish, release }: Cost, ports: number): void =>
  console.log(
    row([title, text(publish), text(release), megabytes(kilobytes), `${(kilobytes / ports).toFixed(1)} KB`])
  )

const megabytes = (kilobytes: number): string => `${(kilobytes / 1024).toFixed(1)} MB`

const text = (millis: number): string => `${millis.toFixed(0)} ms`

const now = (): number => performance.timeOrigin + performance.now()
