/**
 * What the transports cost. The Unix socket against the handler of the Go reference, both granting whatever is asked, by
 * the same client in the same run: the round trip of one client, and the rate of eight. Then stdio, pipelined.
 */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect } from "effect"
import { reference } from "../../test/support/reference.ts"
import { connect, type KeepAliveClient } from "./keepAliveClient.ts"
import { row, summarize } from "./stats.ts"
import * as Stdio from "./stdio.ts"

const rounds = 20
const callsPerRound = 500

export const run = async (): Promise<void> => {
  await Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const go = yield* reference
        const ours = yield* granting
        yield* Effect.promise(() => compare(go, ours))
      })
    )
  )
  await Stdio.run()
}

const body = `${JSON.stringify({
  Reqs: [
    {
      Proto: 6,
      BackendIP: "172.31.0.2",
      BackendPort: 80,
      FrontendIP: "0.0.0.0",
      FrontendPort: 8080,
      FrontendPortEnd: 8080
    }
  ],
  Labels: {}
})}\n`

const compare = async (go: string, ours: string): Promise<void> => {
  const micros: Record<string, Array<number>> = { go: [], ours: [] }
  const rates: Record<string, Array<number>> = { go: [], ours: [] }
  for (const socket of [go, ours]) await roundTrips(socket, 2000)
  for (let round = 0; round < rounds; round++)
    for (const [name, socket] of [
      ["go", go],
      ["ours", ours]
    ] as const) {
      micros[name]?.push(...(await roundTrips(socket, callsPerRound)))
      rates[name]?.push(await rate(socket, 8, callsPerRound))
    }
  console.log(row(["MapPorts over the Unix socket", "p50 µs", "p99 µs", "8 clients/s"]))
  const middle = Object.fromEntries(
    ["go", "ours"].map((name) => {
      const { p50, p99 } = summarize(micros[name] ?? [])
      const perSecond = summarize(rates[name] ?? []).p50
      console.log(
        row([
          name === "go" ? "Go reference handler" : "portmapper",
          p50.toFixed(0),
          p99.toFixed(0),
          perSecond.toFixed(0)
        ])
      )
      return [name, { p50, perSecond }] as const
    })
  )
  console.log(
    row([
      "portmapper over the reference",
      ((middle["ours"]?.p50 ?? 0) / (middle["go"]?.p50 ?? 1)).toFixed(2),
      "",
      ((middle["ours"]?.perSecond ?? 0) / (middle["go"]?.perSecond ?? 1)).toFixed(2)
    ])
  )
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

/** Calls a second of so many clients at once, each one call at a time. */
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

/** A process of its own that serves a driver which grants everything. */
const granting = Effect.gen(function* () {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-bench-"))),
    (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
  )
  const socket = Path.join(folder, "p.sock")
  const program = Path.join(import.meta.dirname, "grantingServer.ts")
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["--import", "tsx", program, socket], { stdio: ["ignore", "pipe", "inherit"] })
    ),
    (running) => Effect.sync(() => running.kill())
  )
  yield* Effect.callback<void>((resume) => void child.stdout.once("data", () => resume(Effect.void)))
  return socket
})
