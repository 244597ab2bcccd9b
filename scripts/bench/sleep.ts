/**
 * A client of a container that sleeps, on a real Engine: from its first packet to the answer, which the container's own
 * start is part of. The yardstick is that start: from the Engine's API to the first connection that the container takes,
 * tried every 5 ms from the host, by turns with the subject. Then 500 clients at once, of one container.
 *
 * Needs root, dockerd, a static busybox, nftables, iptables, and `npm run build`.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect } from "effect"
import { docker, outside, startEngine } from "../../test/lab/Containers.ts"
import type { Dockerd } from "../../test/lab/Dockerd.ts"
import { until } from "../../test/support/until.ts"
import { median, row } from "./stats.ts"

const executable = Path.resolve(import.meta.dirname, "../../dist/bin/portmapper.js")
const rounds = 20
const crowd = 500
const port = 8080

export const run = (): Promise<void> => {
  if (process.getuid?.() !== 0) throw new Error("bench sleep needs root, dockerd and nftables")
  if (!Fs.existsSync(executable)) throw new Error("bench sleep needs npm run build")
  return Effect.runPromise(Effect.scoped(compare))
}

const compare = Effect.gen(function* () {
  const { host, client, dockerd, watch } = yield* startEngine()
  const plugin = yield* watch({ program: [executable] })
  const asleep = until(plugin.call("ListPorts", {}), ({ body }) => body.includes('"State":"asleep"'))
  const gone = until(plugin.call("ListPorts", {}), ({ body }) => !body.includes('"State"'))
  const wake = (count: number) =>
    Effect.map(client.check(process.execPath, ["-e", waking, outside, `${port}`, `${count}`]), Number)

  const woken: Array<number> = []
  const started: Array<number> = []
  for (let round = 0; round < rounds; round++) {
    yield* created(dockerd, [`--label=portmapper.publish=${port}:80`, "--label=portmapper.wake=on"])
    yield* asleep
    woken.push(yield* wake(1))
    yield* removed(dockerd)
    yield* gone
    const id = yield* created(dockerd, [])
    started.push(Number(yield* host.check(process.execPath, ["-e", starting, dockerd.socket, id])))
    yield* removed(dockerd)
  }
  yield* created(dockerd, [`--label=portmapper.publish=${port}:80`, "--label=portmapper.wake=on"])
  yield* asleep
  const together = yield* wake(crowd)

  console.log(row([`${rounds} runs`, "p50", "longest"]))
  for (const [what, millis] of [
    ["a client that wakes it, to its answer", woken],
    ["yardstick: its own start", started]
  ] as const)
    console.log(row([what, text(median(millis)), text(Math.max(...millis))]))
  console.log(row(["more than the yardstick", text(median(woken) - median(started)), ""]))
  console.log(row([`${crowd} clients at once, to the last answer`, text(together), ""]))
})

const created = (dockerd: Dockerd, labels: ReadonlyArray<string>) =>
  Effect.map(
    docker(dockerd, [
      ...["create", "--name=bench", "--stop-signal=KILL", ...labels, "busybox", "/bin/sh", "-c"],
      "echo bench > /www/index.html; httpd -p 80 -h /www; exec sleep 3600"
    ]),
    (id) => id.trim()
  )

const removed = (dockerd: Dockerd) => docker(dockerd, ["rm", "--force", "bench"])

/** Milliseconds until all of these clients have their answers. */
const waking = `
const [, host, port, count] = process.argv
const begun = performance.now()
const one = () => new Promise((done, failed) => {
  let text = ""
  const socket = require("node:net").connect(port, host, () => socket.write("GET / HTTP/1.0\\r\\n\\r\\n"))
  socket.on("data", (bytes) => { text += bytes })
  socket.on("error", failed)
  socket.on("close", () => text.trim().endsWith("bench") ? done() : failed(new Error("no answer")))
})
Promise.all(Array.from({ length: Number(count) }, one)).then(() => console.log(performance.now() - begun))
`

/** Milliseconds from the request to start a container until it takes a connection. */
const starting = `
const [, socketPath, id] = process.argv
const http = require("node:http")
const ask = (method, path) => new Promise((done, failed) => {
  http.request({ socketPath, method, path }, (response) => {
    let text = ""
    response.on("data", (bytes) => { text += bytes })
    response.on("end", () => done(text))
  }).on("error", failed).end()
})
const connects = (host) => new Promise((done) => {
  const socket = require("node:net").connect(80, host)
  socket.once("connect", () => { socket.destroy(); done(true) })
  socket.on("error", () => done(false))
})
const run = async () => {
  const begun = performance.now()
  await ask("POST", "/containers/" + id + "/start")
  const { NetworkSettings } = JSON.parse(await ask("GET", "/containers/" + id + "/json"))
  while (!(await connects(NetworkSettings.IPAddress))) await new Promise((next) => setTimeout(next, 5))
  console.log(performance.now() - begun)
}
run()
`

const text = (millis: number): string => `${Math.round(millis)} ms`
