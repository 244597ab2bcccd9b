/**
 * What the transports cost. The Unix socket beside the handler of the Go reference, both granting every request,
 * with the same client in the same run: the round trip of one client, and the rate of eight. Beside them the upper
 * bound of this client and machine: a bare `node:http` and a bare `node:net` server. Then stdio, pipelined.
 */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect } from "effect"
import { reference } from "../../test/support/reference.ts"
import { labRequest } from "../../test/support/requests.ts"
import { connect, type KeepAliveClient } from "./keepAliveClient.ts"
import { median, ratio, row, summarize } from "./stats.ts"
import * as Stdio from "./stdio.ts"

const rounds = 12
const callsPerRound = 500

export const run = async (): Promise<void> => {
  await Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const subjects: ReadonlyArray<Subject> = [
          { name: "Go reference handler", socket: yield* reference },
          { name: "portmapper", socket: yield* served("grantingServer.ts") },
          { name: "bare node:http, same answer", socket: yield* served("echoServer.ts", "http") },
          { name: "bare node:net, bytes made ahead", socket: yield* served("echoServer.ts", "net") }
        ]
        yield* Effect.promise(() => compare(subjects))
      })
    )
  )
  await Stdio.run()
}

interface Subject {
  readonly name: string
  readonly socket: string
}

const body = `${JSON.stringify(labRequest(8080))}\n`

const compare = async (subjects: ReadonlyArray<Subject>): Promise<void> => {
  const micros = new Map(subjects.map(({ name }) => [name, [] as Array<number>]))
  const rates = new Map(subjects.map(({ name }) => [name, [] as Array<number>]))
  for (const { socket } of subjects) await roundTrips(socket, 4000)
  for (let round = 0; round < rounds; round++)
    for (const { name, socket } of subjects) {
      micros.get(name)?.push(...(await roundTrips(socket, callsPerRound)))
      rates.get(name)?.push(await rate(socket, 8, callsPerRound))
    }
  const middle = new Map(
    subjects.map(({ name }) => {
      const perSecond = median(rates.get(name) ?? [])
      return [name, { ...summarize(micros.get(name) ?? []), perSecond }]
    })
  )
  console.log(row(["MapPorts over the Unix socket", "p50 µs", "p99 µs", "8 clients/s"]))
  for (const [name, { p50, p99, perSecond }] of middle)
    console.log(row([name, p50.toFixed(0), p99.toFixed(0), perSecond.toFixed(0)]))
  const [yardstick, own] = [...middle.values()]
  if (own === undefined || yardstick === undefined) return
  const ratios = [ratio(own.p50, yardstick.p50), "", ratio(own.perSecond, yardstick.perSecond)]
  console.log(row(["portmapper over the reference", ...ratios]))
}

const roundTrips = async (socket: string, calls: number): Promise<ReadonlyArray<number>> => {
  const client = await connect(socket)
  const micros: Array<number> = []
  for (let index = 0; index < calls; index++) {
    const begun = process.hrtime.bigint()
    await client.post("/PortMapper.MapPorts", body)
    micros.push(Number(process.hrtime.bigint() - begun) / 1000)
  }
  client.close()
  return micros
}

/** Calls per second of this many concurrent clients, each one call at a time. */
const rate = async (socket: string, count: number, calls: number): Promise<number> => {
  const clients: ReadonlyArray<KeepAliveClient> = await Promise.all(
    Array.from({ length: count }, () => connect(socket))
  )
  const begun = performance.now()
  await Promise.all(
    clients.map(async (client) => {
      for (let index = 0; index < calls; index++) await client.post("/PortMapper.MapPorts", body)
      client.close()
    })
  )
  return (count * calls * 1000) / (performance.now() - begun)
}

/** Runs a server like the plugin, as a separate process, on the socket given last. */
const served = Effect.fnUntraced(function* (program: string, ...options: ReadonlyArray<string>) {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-bench-"))),
    (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
  )
  const socket = Path.join(folder, "p.sock")
  const command = [Path.join(import.meta.dirname, program), ...options, socket]
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, command, { stdio: ["ignore", "pipe", "inherit"] })),
    (running) => Effect.sync(() => running.kill())
  )
  yield* Effect.callback<void>((resume) => void child.stdout.once("data", () => resume(Effect.void)))
  return socket
})
