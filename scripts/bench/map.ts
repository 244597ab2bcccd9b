/**
 * What `MapPorts` and `UnmapPorts` cost a keep-alive client over the Unix socket in nat mode, with 10 and with
 * 10,000 mappings live. Two plugins run side by side, each in a network namespace of its own, and are called in
 * turn.
 *
 * In the same rounds it measures the yardsticks of this machine: the round trip of `Plugin.Activate` on the same
 * socket, and that of a bare `node:http` server that sends the same messages. It also measures what a call costs
 * the plugin's process.
 */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Calls from "./calls.ts"
import { connect } from "./keepAliveClient.ts"
import { callOver, type Plugin, startLive } from "./plugin.ts"
import { processorMicros } from "./processorTime.ts"
import { median, millis, printTimes, ratio, row } from "./stats.ts"

const rounds = 40
const callsPerRound = 50

export const run = async (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench map needs root, nftables and iproute2")
  const few = await startLive("few", 10)
  const many = await startLive("many", 10_000)
  const echo = await startEcho()
  try {
    const samples = { few: newSamples(), many: newSamples(), echo: newSamples() }
    for (const warm of [few, many]) await measure(warm, newSamples(), 2000)
    await measure(echo, newSamples(), 2000)
    for (let round = 0; round < rounds; round++) {
      await measure(few, samples.few, callsPerRound)
      await measure(many, samples.many, callsPerRound)
      await measure(echo, samples.echo, callsPerRound)
    }
    print(samples)
  } finally {
    few.stop()
    many.stop()
    echo.stop()
  }
}

const print = ({ few, many, echo }: Readonly<Record<"few" | "many" | "echo", Samples>>): void => {
  const line = (name: string, micros: ReadonlyArray<number>, processor: ReadonlyArray<number>) =>
    printTimes(name, micros, millis(median(processor)))
  console.log(row(["over the Unix socket, nat mode", "p50", "p99", "cpu a call"]))
  const mapFew = line("MapPorts, 10 live", few.map, few.processor)
  const unmapFew = line("UnmapPorts, 10 live", few.unmap, few.processor)
  const mapMany = line("MapPorts, 10,000 live", many.map, many.processor)
  const unmapMany = line("UnmapPorts, 10,000 live", many.unmap, many.processor)
  line("yardstick: Plugin.Activate", few.activate, few.activateProcessor)
  line("yardstick: bare node:http echo", echo.map, echo.processor)
  console.log(
    row([
      "10,000 live over 10 live, p50",
      `map ${ratio(mapMany, mapFew)}`,
      `unmap ${ratio(unmapMany, unmapFew)}`
    ])
  )
}

type Measured = Pick<Plugin, "call" | "client" | "pid" | "stop">

/** In microseconds; processor time is that of all threads, per call, averaged over a round. */
interface Samples extends Calls.Samples {
  readonly activate: Array<number>
  readonly processor: Array<number>
  readonly activateProcessor: Array<number>
}

const newSamples = (): Samples => ({
  ...Calls.newSamples(),
  activate: [],
  processor: [],
  activateProcessor: []
})

const measure = async ({ call, client, pid }: Measured, samples: Samples, calls: number) => {
  const before = processorMicros(pid)
  await Calls.measureCalls(call, samples, calls, (index) => 40_000 + (index % 1000))
  const between = processorMicros(pid)
  for (let index = 0; index < calls; index++) {
    const begun = process.hrtime.bigint()
    await client.post("/Plugin.Activate", "{}\n")
    samples.activate.push(Number(process.hrtime.bigint() - begun) / 1000)
  }
  samples.processor.push((between - before) / calls / 2)
  samples.activateProcessor.push((processorMicros(pid) - between) / calls)
}

const startEcho = async (): Promise<Measured> => {
  const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-bench-"))
  const socketPath = Path.join(folder, "p.sock")
  const program = Path.join(import.meta.dirname, "echoServer.ts")
  const child = spawn(process.execPath, [program, "http", socketPath], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  await new Promise((resolve) => child.stdout.once("data", resolve))
  const stop = () => {
    child.kill("SIGKILL")
    Fs.rmSync(folder, { recursive: true, force: true })
  }
  const client = await connect(socketPath)
  return { call: callOver(client), client, pid: child.pid ?? 0, stop }
}
