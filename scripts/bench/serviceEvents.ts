/**
 * The time from the Engine's event that a backend of a service ended, or started, to the kernel's change, on a real
 * Engine. The backend is killed from outside, so that no event comes before `die`.
 */
import { Effect } from "effect"
import { docker, leaveContainer, startEngine } from "../../test/lab/Containers.ts"
import type { Dockerd } from "../../test/lab/Dockerd.ts"
import { type Running, spawn } from "../../test/lab/Running.ts"
import { row, summarize } from "./stats.ts"

const rounds = 15
const patience = { timeoutMillis: 600_000 }

export const measureEvents = (): Promise<void> => Effect.runPromise(Effect.scoped(measure))

const measure = Effect.gen(function* () {
  const { host, dockerd, watch } = yield* startEngine()
  yield* watch()
  const events = yield* eventsOf(dockerd, "container=web-1")
  const changes = yield* host.spawn("nft", ["monitor"])
  for (const name of ["web-1", "web-2", "web-3"])
    yield* leaveContainer(dockerd, name, {
      labels: { "portmapper.publish": "8080:80", "portmapper.share": "web" }
    })
  yield* changes.waitForLine(/add element .*8080/, patience)
  const [ended, started]: [Array<number>, Array<number>] = [[], []]
  for (let round = 0; round < rounds; round++) {
    yield* Effect.sleep("500 millis")
    const pid = Number(yield* docker(dockerd, ["inspect", "--format={{.State.Pid}}", "web-1"]))
    const kill = Effect.sync(() => process.kill(pid, "SIGKILL"))
    ended.push(yield* after(events, "die", changes, change, () => kill))
    yield* Effect.sleep("500 millis")
    started.push(yield* after(events, "start", changes, change, () => docker(dockerd, ["start", "web-1"])))
  }
  console.log(`\n${row([`from the Engine's event, ${rounds} rounds, ms`, "p50", "worst"])}`)
  for (const [title, millis] of [
    ["  `die`: its slots lead elsewhere", ended],
    ["  `start`: it has slots", started]
  ] as const) {
    const { p50, p99 } = summarize(millis)
    console.log(row([title, p50.toFixed(1), p99.toFixed(1)]))
  }
})

/** A change of an element that `nft monitor` prints. */
const change = /element .*8080/

/** One line for each event of a container: its time in nanoseconds and its action. */
export const eventsOf = (dockerd: Dockerd, filter: string) =>
  spawn("docker", [
    ...["--host", `unix://${dockerd.socket}`, "events", `--filter=${filter}`],
    "--format={{.TimeNano}} {{.Action}}"
  ])

/** Milliseconds from the event, as the Engine dates it, to the first such line that a process prints after it. */
export const after = Effect.fnUntraced(function* <A, E>(
  events: Running,
  action: string,
  process: Running,
  line: RegExp,
  act: () => Effect.Effect<A, E>
) {
  const [before, seen] = [events.lines().length, process.lines().length]
  const now = () => performance.timeOrigin + performance.now()
  const [, doneAt] = yield* Effect.all(
    [act(), Effect.map(process.waitForLine(line, { after: seen, ...patience }), now)],
    { concurrency: 2 }
  )
  const event = yield* events.waitForLine(new RegExp(` ${action}$`), { after: before, ...patience })
  return doneAt - Number(event.split(" ")[0]) / 1e6
})
