/**
 * `npm run demo -- redeploy`: three replicas behind one port are replaced one by one, while a client opens new
 * connections all the time and counts those that fail.
 */
import type { ChildProcess } from "node:child_process"
import { once } from "node:events"
import type { Shown } from "./Shown.ts"
import type { Running, Stage } from "./Stage.ts"

/** Answers with its name, and shuts down as servers do: it finishes what is open, and takes no more. */
const page = `
const [, name, host] = process.argv
const server = require("node:http").createServer((request, response) => response.end(name))
server.listen(80, host, () => console.log("ready"))
process.on("SIGTERM", () => server.close())
`

/** Each request is a new connection. Prints every second whose answers came and how many failed, until its input ends. */
const requesting = `
const http = require("node:http")
const [, url, perSecond] = process.argv
let counts = { answered: {}, failed: [] }
let sent = 0, open = 0, begun
const ended = () => { open--; if (stopped && open === 0) report() }
const send = () => {
  open++
  const fail = (error) => { counts.failed.push(error.code ?? error.message); ended() }
  const request = http.get(url, { agent: false }, (response) => {
    let text = ""
    response.on("data", (bytes) => { text += bytes })
    response.on("error", fail)
    response.on("end", () => { counts.answered[text] = (counts.answered[text] ?? 0) + 1; ended() })
  })
  request.setTimeout(5000, () => request.destroy(new Error("no answer")))
  request.on("error", fail)
}
const report = () => {
  if (Object.keys(counts.answered).length + counts.failed.length > 0) console.log(JSON.stringify(counts))
  counts = { answered: {}, failed: [] }
}
let stopped = false
console.log("ready")
begun = performance.now()
const sending = setInterval(() => {
  for (; sent < (performance.now() - begun) / 1000 * perSecond; sent++) send()
}, 5)
const reporting = setInterval(report, 1000)
process.stdin.resume().on("end", () => {
  clearInterval(sending); clearInterval(reporting)
  stopped = true
  if (open === 0) report()
})
`

const perSecond = 200
const replicas = [1, 2, 3]

/** The columns of the counts: each replica's container before and after. */
const containers = replicas.flatMap((number) => [`web-${number} old`, `web-${number} new`])

export const redeploy = async (stage: Stage, shown: Shown): Promise<void> => {
  shown.print(
    "Three replicas of a server share one port of the host; each answers with its name:",
    "",
    "   client 10.99.0.2 ── 10.99.0.1 host 172.31.0.1 ── 172.31.0.11, .12, .13: web-1, web-2, web-3"
  )
  await stage.build()
  await stage.serve()
  const ran = async (line: string) => shown.ran("host", `portmapper ${line}`, await stage.portmapper(line))
  const run = async (name: string, number: number) => {
    const address = `172.31.0.${number}`
    const container = await stage.container(number, page, [name, address])
    await ran(`map -p 0.0.0.0:8080:80 --to ${address} --label portmapper.share=web`)
    return { address, server: container.process }
  }
  const old: Array<Awaited<ReturnType<typeof run>>> = []
  for (const number of replicas) old.push(await run(`web-${number} old`, 10 + number))
  await ran("ls")

  shown.print(
    `A client sends ${perSecond} requests a second, each by a new connection, and counts who answers.`
  )
  const client = await stage.start(
    "client",
    ["-e", requesting, "http://10.99.0.1:8080/", `${perSecond}`],
    "stdout",
    /^ready/
  )
  const counter = new Counter(client, shown)
  await counter.next()
  for (const [index, { address, server }] of old.entries()) {
    const name = `web-${replicas[index]}`
    shown.print(`Replace ${name}: its new container joins, then the old one leaves and is stopped.`)
    await run(`${name} new`, 20 + index + 1)
    await ran(`unmap -p 8080 --to ${address}`)
    await counter.next()
    server.kill("SIGTERM")
    await once(server, "exit")
    await counter.next()
  }
  shown.print("All containers are new; the port was never away.")
  await ran("ls")
  const { answered, failed } = await counter.end()
  if (failed.length > 0)
    throw new Error(
      `${failed.length} of ${answered + failed.length} requests failed: ${[...new Set(failed)].join(", ")}`
    )
  shown.print(`${answered.toLocaleString("en")} requests, ${failed.length} failed.`)
}

interface Counts {
  readonly answered: Readonly<Record<string, number>>
  readonly failed: ReadonlyArray<string>
}

/** Shows what the client counts, a line a second. */
class Counter {
  readonly #client: ChildProcess
  readonly #ended: Promise<void>
  #answered = 0
  #failed: ReadonlyArray<string> = []
  #noticed: () => void = () => undefined

  constructor({ process, lines }: Running, shown: Shown) {
    this.#client = process
    this.#ended = this.#count(lines, shown)
  }

  /** Resolves with the next line. */
  next(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#noticed = resolve
    return Promise.race([promise, this.#ended])
  }

  async end(): Promise<{ readonly answered: number; readonly failed: ReadonlyArray<string> }> {
    this.#client.stdin?.end()
    await this.#ended
    return { answered: this.#answered, failed: this.#failed }
  }

  async #count(lines: AsyncIterator<string>, shown: Shown): Promise<void> {
    for (let line = await lines.next(); line.done !== true; line = await lines.next()) {
      const { answered, failed } = JSON.parse(line.value) as Counts
      for (const count of Object.values(answered)) this.#answered += count
      this.#failed = [...this.#failed, ...failed]
      const cells = [...containers.map((name) => answered[name] ?? "-"), this.#failed.length]
      shown.row([...containers, "failed"], cells)
      this.#noticed()
    }
  }
}
