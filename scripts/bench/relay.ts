/**
 * The relay beside a direct connection, docker-proxy and nginx's stream module, in one run, round by round, all on
 * the loopback interface: bulk, new connections, round trips and packets, with the processor time of each; then the
 * memory of idle ports. Needs gcc; for a subject that is not installed, or exits, a row prints the reason.
 */
import { execFile } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setImmediate } from "node:timers/promises"
import { promisify } from "node:util"
import { measureMemory, memoryTitle } from "./relayMemory.ts"
import {
  compileLoad,
  host,
  Processes,
  processorTime,
  type Service,
  type Subject,
  startSubjects
} from "./relaySubjects.ts"
import { median, row } from "./stats.ts"

const rounds = Number(process.env["ROUNDS"] ?? 5)
/** Runs only tests whose title contains this text; all of them without it. */
const only = process.env["ONLY"] ?? ""

interface Test {
  readonly title: string
  readonly service: Service
  readonly words: ReadonlyArray<string | number>
  readonly seconds: number
  readonly unit: string
  /** The unit of processor time: the divisor of a result, and its name. */
  readonly cost: { readonly per: (result: Result) => number; readonly unit: string }
}

interface Result {
  readonly rate: number
  readonly p50?: number
  readonly p99?: number
  readonly gigabytes?: number
  readonly failed: number
  readonly seconds: number
  readonly processor: number
}

const perGigabyte = { per: ({ gigabytes = 0 }: Result) => gigabytes, unit: "s/GB" }
const perThing = { per: ({ rate, seconds }: Result) => (rate * seconds) / 1e6, unit: "us each" }

const test = (
  title: string,
  service: Service,
  [command, ...words]: readonly [string, ...ReadonlyArray<number>],
  seconds: number,
  unit: string
): Test => {
  const cost = command === "bulk" ? perGigabyte : perThing
  const [first = 1, ...rest] = words
  const timed = command === "flood" ? [first, rest[0] ?? 1, seconds, ...rest.slice(1)] : [first, seconds]
  return { title, service, words: [command, ...timed], seconds, unit, cost }
}

const allTests: ReadonlyArray<Test> = [
  test("bulk, 1 stream", "sink", ["bulk", 1], 1.2, "Gbit/s"),
  test("bulk, 4 streams", "sink", ["bulk", 4], 1.2, "Gbit/s"),
  test("new connections, 16 at a time", "echo", ["connect", 16], 1.2, "/s"),
  test("round trips of 1 byte, 1 connection", "echo", ["pingpong", 1], 0.8, "/s"),
  test("round trips of 1 byte, 32 connections", "echo", ["pingpong", 32], 0.8, "/s"),
  test("packets of 64 bytes, 8 flows of 32", "packets", ["flood", 8, 32, 64], 1, "/s")
]

const tests = allTests.filter(({ title }) => title.includes(only))

export const run = async (): Promise<void> => {
  const folder = mkdtempSync(join(tmpdir(), "portmapper-bench-"))
  const processes = new Processes()
  try {
    const load = compileLoad(folder)
    const subjects = await startSubjects(processes, load, folder)
    const results = await measure(processes, load, subjects)
    for (const { title, unit, cost } of tests) print(title, unit, cost, subjects, results)
    if (memoryTitle.includes(only)) await measureMemory(processes, folder)
  } finally {
    processes.end()
    rmSync(folder, { recursive: true, force: true })
  }
}

type Results = Map<string, Array<Result>>
const keyOf = (title: string, { name }: Subject) => `${title} ${name}`

/** Subjects take turns, each round in another order; the first round warms up. */
const measure = async (
  processes: Processes,
  load: string,
  subjects: ReadonlyArray<Subject>
): Promise<Results> => {
  const results: Results = new Map()
  for (let round = 0; round <= rounds; round++)
    for (const test of tests)
      for (let turn = 0; turn < subjects.length; turn++) {
        const subject = subjects[(turn + round) % subjects.length]
        if (subject === undefined || subject.gone !== undefined) continue
        try {
          const result = await measureOnce(load, subject, test)
          const key = keyOf(test.title, subject)
          if (round > 0) results.set(key, [...(results.get(key) ?? []), result])
        } catch (error) {
          // The exit of a process is reported a moment later.
          await setImmediate()
          subject.gone = processes.whyEnded(subject.processes) ?? String(error)
        }
      }
  return results
}

const measureOnce = async (
  load: string,
  subject: Subject,
  { service, words, seconds }: Test
): Promise<Result> => {
  const before = processorTime(subject.processes)
  const [command = "", ...rest] = words.map(String)
  const { stdout } = await promisify(execFile)(load, [command, host, `${subject.port(service)}`, ...rest])
  return { ...JSON.parse(stdout), seconds, processor: processorTime(subject.processes) - before }
}

const print = (
  title: string,
  unit: string,
  cost: Test["cost"],
  subjects: ReadonlyArray<Subject>,
  results: Results
) => {
  console.log(
    `\n${row([`${title}, median of ${rounds}`, unit, "of direct", cost.unit, "p50 us", "p99 us", "failed"])}`
  )
  const of = (subject: Subject, value: (result: Result) => number | undefined) =>
    median((results.get(keyOf(title, subject)) ?? []).map((result) => value(result) ?? Number.NaN))
  const rate = ({ rate }: Result) => rate
  const [direct] = subjects
  for (const subject of subjects) {
    if (subject.gone !== undefined) {
      console.log(`${row([`  ${subject.name}`])}  not measured: ${subject.gone}`)
      continue
    }
    const own = of(subject, rate)
    const share = direct === undefined ? Number.NaN : own / of(direct, rate)
    const spent = of(subject, (result) => result.processor / cost.per(result))
    const micros = (value: (result: Result) => number | undefined) => {
      const middle = of(subject, value)
      return Number.isNaN(middle) ? "" : middle.toFixed(0)
    }
    console.log(
      row([
        `  ${subject.name}`,
        own.toFixed(own < 1000 ? 1 : 0),
        share.toFixed(2),
        subject.processes.length === 0 ? "" : spent.toFixed(spent < 1 ? 3 : 1),
        micros(({ p50 }) => p50),
        micros(({ p99 }) => p99),
        (results.get(keyOf(title, subject)) ?? []).reduce((sum, { failed }) => sum + failed, 0)
      ])
    )
  }
}
