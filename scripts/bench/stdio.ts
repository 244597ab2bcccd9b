/**
 * Requests a second over stdio, pipelined: maps and unmaps by turns, in process over two `PassThrough`s and to a child
 * process over pipes.
 */
import { spawn } from "node:child_process"
import { PassThrough, type Readable, type Writable } from "node:stream"
import { Effect } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"

const count = 50_000
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

const measure = async (name: string, lines: ReadonlyArray<string>, to: Writable, from: Readable) => {
  const begun = performance.now()
  let answered = 0
  let chunks = 0
  const done = new Promise<void>((resolve) => {
    from.on("data", (chunk: Buffer) => {
      chunks++
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
  const seconds = (performance.now() - begun) / 1000
  console.log(`${name}: ${Math.round(lines.length / seconds)} requests/s (${chunks} chunks of answers)`)
}

export const run = async (): Promise<void> => {
  const input = new PassThrough()
  const output = new PassThrough()
  Effect.runFork(serve({ input, output }).pipe(Effect.provide(PortMapper.layerMemory())))
  for (let round = 0; round < 3; round++) {
    await measure("in process, map and unmap", requests, input, output)
    await measure("in process, activate", activations, input, output)
  }
  input.end()

  const child = spawn(process.execPath, [new URL("stdio-server.ts", import.meta.url).pathname], {
    stdio: ["pipe", "pipe", "inherit"]
  })
  for (let round = 0; round < 3; round++) {
    await measure("child process, map and unmap", requests, child.stdin, child.stdout)
    await measure("child process, activate", activations, child.stdin, child.stdout)
  }
  child.stdin.end()
}
