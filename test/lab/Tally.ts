/** Counts which container of a service answers new connections, by the name that each serves by HTTP. */
import { Effect } from "effect"
import { outside } from "./Containers.ts"
import type { Namespace } from "./Namespace.ts"

/** How many of so many new connections each container answers; `error` counts those that fail. */
export const tally = (from: Namespace, port: number, connections: number) =>
  Effect.map(
    from.check(process.execPath, ["-e", connecting, outside, `${port}`, `${connections}`]),
    (text) => JSON.parse(text) as Readonly<Record<string, number>>
  )

const connecting = `
const [, host, port, connections] = process.argv
const names = {}
const one = () => new Promise((done) => {
  let text = ""
  const count = (name) => { names[name] = (names[name] ?? 0) + 1; done() }
  const socket = require("node:net").connect(port, host, () => socket.write("GET / HTTP/1.0\\r\\n\\r\\n"))
  socket.setTimeout(5_000, () => socket.destroy(new Error("timeout")))
  socket.on("data", (bytes) => { text += bytes })
  socket.on("end", () => count(text.trim().split("\\n").at(-1) || "error"))
  socket.on("error", () => count("error"))
})
const worker = async () => { while (left-- > 0) await one() }
let left = connections
Promise.all(Array.from({ length: 8 }, worker)).then(() => console.log(JSON.stringify(names)))
`

/** The same at a steady number of connections a second, for some seconds. */
export const rate = (from: Namespace, port: number, perSecond: number, seconds: number) =>
  Effect.map(
    from.check(process.execPath, [
      ...["-e", connecting.replace(/const worker[\s\S]*$/, paced)],
      ...[outside, `${port}`, `${perSecond}`, `${seconds}`]
    ]),
    (text) => JSON.parse(text) as Readonly<Record<string, number>>
  )

const paced = `
const seconds = Number(process.argv[4])
const begun = performance.now()
const all = []
const timer = setInterval(() => {
  const elapsed = Math.min((performance.now() - begun) / 1000, seconds)
  while (all.length < elapsed * Number(connections)) all.push(one())
  if (elapsed === seconds) {
    clearInterval(timer)
    Promise.all(all).then(() => console.log(JSON.stringify(names)))
  }
}, 5)
`
