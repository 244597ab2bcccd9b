/**
 * Requests per second over stdio, pipelined: alternating maps and unmaps, to a child process over pipes. The first
 * rounds warm it up and are not counted. Beside the rate it measures the child's processor time per request, since
 * a busy machine lowers the rate.
 */
import { spawn } from "node:child_process"
import type { Readable, Writable } from "node:stream"
import { processorMicros } from "./processorTime.ts"
import { row, summarize } from "./stats.ts"

const count = 20_000
const warmUps = 3
const rounds = 7
const frontend = (port: number) =>
  `"Proto":6,"BackendIP":"172.17.0.2","BackendPort":80,"FrontendIP":"0.0.0.0","FrontendPort":${port}`

const requests = Array.from({ length: count }, (_, index) => {
  const binding = frontend(10_000 + ((index >> 1) % 20_000))
  const [method, params] =
    index % 2 === 0
      ? [
          "MapPorts",
          `{"Reqs":[{${binding},"FrontendPortEnd":${10_000 + ((index >> 1) % 20_000)}}],"Labels":{}}`
        ]
      : ["UnmapPorts", `{"PortBindings":[{${binding}}],"Labels":{}}`]
  return `{"jsonrpc":"2.0","id":${index},"method":"PortMapper.${method}","params":${params}}\n`
})
const activations = requests.map((_, id) => `{"jsonrpc":"2.0","id":${id},"method":"Plugin.Activate"}\n`)

/** Seconds until all requests are answered. */
const measure = async (lines: ReadonlyArray<string>, to: Writable, from: Readable): Promise<number> => {
  const begun = performance.now()
  let answered = 0
  const done = new Promise<void>((resolve) => {
    from.on("data", (chunk: Buffer) => {
      for (let at = chunk.indexOf(10); at !== -1; at = chunk.indexOf(10, at + 1)) answered++
      if (answered === lines.length) resolve()
    })
  })
  for (let start = 0; start < lines.length; start += 200) {
    if (!to.write(lines.slice(start, start + 200).join(""))) {
      await new Promise((resolve) => to.once("drain", resolve))
    }
  }
  await done
  from.removeAllListeners("data")
  return (performance.now() - begun) / 1000
}

export const run = async (): Promise<void> => {
  const child = spawn(process.execPath, [new URL("stdio-server.ts", import.meta.url).pathname], {
    stdio: ["pipe", "pipe", "inherit"]
  })
  const pid = child.pid ?? 0
  console.log(row(["stdio, pipelined, in-memory services", "requests/s", "best", "µs cpu each"]))
  for (const [name, lines] of [
    ["map and unmap", requests],
    ["activate", activations]
  ] as const) {
    const rates: Array<number> = []
    const processor: Array<number> = []
    for (let round = -warmUps; round < rounds; round++) {
      const before = processorMicros(pid)
      const seconds = await measure(lines, child.stdin, child.stdout)
      if (round < 0) continue
      rates.push(lines.length / seconds)
      processor.push((processorMicros(pid) - before) / lines.length)
    }
    const cells = [summarize(rates).p50, Math.max(...rates), summarize(processor).p50]
    console.log(row([name, ...cells.map((cell) => cell.toFixed(0))]))
  }
  child.stdin.end()
}
