/**
 * Runs in its own process, and connects without pause: new TCP connections and datagrams to echoes, and requests to a
 * plugin's socket, on kept-alive connections as the Engine's and on new ones. Prints `knocking` once each kind has
 * succeeded, and at the end of its input how often each succeeded, and every failure.
 */
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import { setTimeout as sleep } from "node:timers/promises"

export interface Knocks {
  readonly host: string
  readonly tcp: ReadonlyArray<number>
  readonly udp: ReadonlyArray<number>
  readonly socket: string
  /** The repeated MapPorts request. */
  readonly request: unknown
  /** New TCP connections to each port per second, whether those before have ended or not; else one after the other. */
  readonly rate?: number
}

export interface Knocked {
  readonly counts: Record<string, number>
  readonly failures: ReadonlyArray<string>
}

const { host, tcp, udp, socket, request, rate } = JSON.parse(process.argv[2] ?? "") as Knocks
const counts: Record<string, number> = {}
const failures: Array<string> = []
let running = true
/** Longer than any handover takes, even on a busy machine. */
const patienceMillis = 20_000

const knocker = async (name: string, knock: () => Promise<void>) => {
  counts[name] = 0
  while (running) {
    try {
      await knock()
      counts[name]++
    } catch (error) {
      failures.push(`${name} ${counts[name]}: ${(error as Error).message}`)
    }
    // Each connection uses up a port for a while.
    await sleep(2)
  }
}

const text = JSON.stringify(request)
const bytes = `POST /PortMapper.MapPorts HTTP/1.1\r\nHost: plugin.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: ${Buffer.byteLength(text)}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n${text}`

/** One line, or what `isWhole` accepts as a complete answer. */
const exchange = (connection: Net.Socket, sent: string, isWhole: (got: string) => boolean) =>
  new Promise<string>((resolve, reject) => {
    let got = ""
    const settle = (error: Error | undefined) => {
      clearTimeout(timer)
      connection.off("data", onData).off("error", settle).off("close", onClose)
      if (error === undefined) resolve(got)
      else reject(error)
    }
    const onData = (chunk: Buffer) => {
      got += chunk
      if (isWhole(got)) settle(undefined)
    }
    const onClose = () => settle(new Error(`closed after ${JSON.stringify(got)}`))
    const timer = setTimeout(() => settle(new Error("no answer")), patienceMillis)
    connection.on("data", onData).on("error", settle).on("close", onClose)
    connection.write(sent)
  })

const isWholeAnswer = (got: string): boolean => {
  const end = got.indexOf("\r\n\r\n")
  const length = /content-length: (\d+)/i.exec(got)?.[1]
  return end !== -1 && length !== undefined && got.length >= end + 4 + Number(length)
}

const ask = async (connection: Net.Socket) => {
  const answer = await exchange(connection, bytes, isWholeAnswer)
  if (!answer.startsWith("HTTP/1.1 200 ")) throw new Error(answer)
}

const fresh = async <A>(connection: Net.Socket, use: (connection: Net.Socket) => Promise<A>) => {
  try {
    await use(connection)
  } finally {
    connection.on("error", () => {}).destroy()
  }
}

const packet = (to: Dgram.Socket, port: number) =>
  new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no answer")), patienceMillis)
    to.once("message", () => {
      clearTimeout(timer)
      resolve()
    })
    to.send("knock", port, host)
  })

/** As `knocker`, but does not wait for one knock before the next. */
const paced = (name: string, perSecond: number, knock: () => Promise<void>) => {
  counts[name] = 0
  const knockOnce = async () => {
    try {
      await knock()
      counts[name] = (counts[name] ?? 0) + 1
    } catch (error) {
      failures.push(`${name} ${counts[name]}: ${(error as Error).message}`)
    }
  }
  const begun = performance.now()
  let knocked = 0
  setInterval(() => {
    for (const due = ((performance.now() - begun) / 1000) * perSecond; running && knocked < due; knocked++)
      void knockOnce()
  }, 5)
}

for (const port of tcp) {
  const connect = () =>
    fresh(Net.connect({ host, port }), (connection) =>
      exchange(connection, "knock\n", (got) => got.endsWith("\n"))
    )
  if (rate === undefined) void knocker(`tcp ${port}`, connect)
  else paced(`tcp ${port}`, rate, connect)
}
for (const port of udp) {
  const from = Dgram.createSocket("udp4")
  void knocker(`udp ${port}`, () => packet(from, port))
}
void knocker("requests", () => fresh(Net.connect(socket), ask))
for (const name of ["kept alive", "kept alive, mostly idle"]) {
  let connection = Net.connect(socket)
  void knocker(name, async () => {
    if (connection.destroyed) connection = Net.connect(socket)
    await ask(connection)
    if (name.endsWith("idle")) await sleep(200)
  })
}

const begun = setInterval(() => {
  if (!Object.values(counts).every((count) => count > 0)) return
  clearInterval(begun)
  console.log("knocking")
}, 10)

process.stdin.resume().once("end", () => {
  running = false
  console.log(JSON.stringify({ counts, failures } satisfies Knocked))
  process.exit()
})
