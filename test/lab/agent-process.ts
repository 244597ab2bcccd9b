/**
 * The agent: a plain Node program that sends and answers traffic inside one network namespace. Requests come as JSON
 * lines on standard input, answers go as JSON lines to standard output, in the order they complete. It ends with its
 * input. `Agent.ts` is the other side.
 */
import * as Dgram from "node:dgram"
import * as Net from "node:net"
import { createInterface } from "node:readline"
import type {
  AgentAnswer,
  Answer,
  EchoRequest,
  Endpoint,
  HoldRequest,
  Opened,
  Operations,
  TcpOutcome,
  TcpRequest,
  TcpResult,
  TransferProgress,
  TransferRequest,
  UdpReply,
  UdpRequest,
  UdpResult
} from "./AgentProtocol.ts"
import { exchangeMillis } from "./patience.ts"

interface Resource {
  readonly stop: () => Promise<void>
  readonly progress?: () => TransferProgress
}

const role = process.argv[2] ?? "agent"
const resources = new Map<number, Resource>()
let lastHandle = 0

const keep = (local: Endpoint, resource: Resource): Opened => {
  lastHandle++
  resources.set(lastHandle, resource)
  return { handle: lastHandle, local }
}

const operations: {
  readonly [Name in keyof Operations]: (
    request: Operations[Name][0]
  ) => Operations[Name][1] | Promise<Operations[Name][1]>
} = {
  ping: () => ({ pid: process.pid }),
  echo: (request) => {
    const who = request.who ?? role
    return request.protocol === "tcp"
      ? listen(request, (socket) => echoLines(socket, who))
      : bind(request, who)
  },
  hold: (request) => (request.protocol === "tcp" ? listen(request, () => {}) : bind(request, undefined)),
  tcp,
  udp,
  transfer,
  progress: ({ handle }) => {
    const progress = resources.get(handle)?.progress
    if (progress === undefined) throw new Error(`handle ${handle} is not a transfer`)
    return progress()
  },
  stop: async ({ handle }) => {
    await resources.get(handle)?.stop()
    resources.delete(handle)
    return {}
  }
}

const respond = (answer: AgentAnswer): void => {
  process.stdout.write(`${JSON.stringify(answer)}\n`)
}

const input = createInterface({ input: process.stdin })
input.on("line", async (line) => {
  const { id, op, request } = JSON.parse(line) as { id: number; op: keyof Operations; request: never }
  try {
    respond({ id, ok: await operations[op](request) })
  } catch (error) {
    respond({ id, code: codeOf(error) ?? "Error", detail: (error as Error).message })
  }
})
input.on("close", () => process.exit(0))

function listen(request: HoldRequest | EchoRequest, serve: (socket: Net.Socket) => void): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const sockets = new Set<Net.Socket>()
    const server = Net.createServer({ allowHalfOpen: true }, (socket) => {
      sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => sockets.delete(socket))
      serve(socket)
    })
    server.once("error", reject)
    server.listen(
      { host: request.host ?? "0.0.0.0", port: request.port ?? 0, ipv6Only: request.dual !== true },
      () => {
        const stop = () =>
          new Promise<void>((done) => {
            server.close(() => done())
            for (const socket of sockets) socket.destroy()
          })
        resolve(keep(endpoint(server.address() as Net.AddressInfo), { stop }))
      }
    )
  })
}

/** Each line comes back as `WHO ADDRESS PORT LINE`; an end is answered by an end. */
function echoLines(socket: Net.Socket, who: string): void {
  const prefix = `${who} ${socket.remoteAddress} ${socket.remotePort} `
  socket.setNoDelay(true)
  readLines(socket, (line) => socket.write(`${prefix}${line}\n`))
  socket.on("end", () => socket.end())
}

function bind(request: HoldRequest | EchoRequest, who: string | undefined): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const host = request.host ?? "0.0.0.0"
    const socket = Dgram.createSocket({
      type: Net.isIPv6(host) ? "udp6" : "udp4",
      ipv6Only: Net.isIPv6(host) && request.dual !== true
    })
    socket.once("error", reject)
    if (who !== undefined)
      socket.on("message", (data, from) =>
        socket.send(`${who} ${from.address} ${from.port} ${data}`, from.port, from.address, () => {})
      )
    socket.bind({ address: host, port: request.port ?? 0, exclusive: true }, () => {
      socket.on("error", () => {})
      const stop = () => new Promise<void>((done) => socket.close(() => done()))
      resolve(keep(endpoint(socket.address()), { stop }))
    })
  })
}

function tcp(request: TcpRequest): Promise<TcpResult> {
  return new Promise((resolve, reject) => {
    const began = performance.now()
    const socket = connect(request)
    let connected = false
    let local: Endpoint | undefined
    const settle = (outcome: TcpOutcome, more: Pick<TcpResult, "answer" | "code"> = {}) => {
      clearTimeout(timer)
      const millis = Math.round(performance.now() - began)
      resolve({ outcome, connected, ...more, ...(local === undefined ? {} : { local }), millis })
      if (request.close === "reset") socket.resetAndDestroy()
      else socket.destroy()
    }
    const timer = setTimeout(() => settle("timeout"), request.timeoutMillis ?? exchangeMillis)
    socket.on("connect", () => {
      connected = true
      local = { address: socket.localAddress ?? "", port: socket.localPort ?? 0 }
      socket.write(`${request.payload ?? "hello"}\n`)
    })
    readLines(socket, (line) => settle("answered", { answer: parse(line) }))
    socket.on("end", () => settle("closed"))
    socket.on("error", (error) => {
      const outcome = outcomeOf(error)
      if (outcome !== undefined) return settle(outcome, codeField(error))
      clearTimeout(timer)
      reject(error)
    })
  })
}

function transfer(request: TransferRequest): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const socket = connect(request)
    const padding = ".".repeat(Math.max(0, (request.chunkBytes ?? 64) - 12))
    let progress: TransferProgress = { state: "open", rounds: 0, bytes: 0 }
    let expected = ""
    let timer: NodeJS.Timeout = setTimeout(
      () => socket.destroy(Object.assign(new Error("no handshake"), { code: "ETIMEDOUT" })),
      request.timeoutMillis ?? exchangeMillis
    )
    const finish = (state: "closed" | "failed", more: { code?: string } = {}) => {
      clearTimeout(timer)
      if (progress.state === "open") progress = { ...progress, state, ...more }
      socket.destroy()
    }
    const send = () => {
      expected = `${progress.rounds} ${padding}`
      socket.write(`${expected}\n`)
    }
    socket.on("connect", () => {
      clearTimeout(timer)
      socket.setNoDelay(true)
      const local = { address: socket.localAddress ?? "", port: socket.localPort ?? 0 }
      const stop = async () => finish("closed")
      resolve(keep(local, { stop, progress: () => progress }))
      send()
    })
    readLines(socket, (line) => {
      const answer = parse(line)
      if (answer.payload !== expected) return finish("failed", { code: "WrongEcho" })
      progress = {
        ...progress,
        rounds: progress.rounds + 1,
        bytes: progress.bytes + expected.length + 1,
        first: progress.first ?? answer
      }
      timer = setTimeout(send, request.intervalMillis ?? 10)
    })
    socket.on("end", () => finish("closed"))
    socket.on("error", (error) => {
      finish("failed", codeField(error))
      reject(error)
    })
  })
}

async function udp(request: UdpRequest): Promise<UdpResult> {
  const socket = Dgram.createSocket(Net.isIPv6(request.host) ? "udp6" : "udp4")
  const replies: Array<UdpReply> = []
  const next = (): Promise<Pick<UdpResult, "outcome" | "code">> =>
    new Promise((resolve, reject) => {
      const settle = (result: Pick<UdpResult, "outcome" | "code">) => {
        clearTimeout(timer)
        socket.removeAllListeners("message").removeAllListeners("error")
        socket.on("error", () => {})
        resolve(result)
      }
      const timer = setTimeout(() => settle({ outcome: "timeout" }), request.timeoutMillis ?? exchangeMillis)
      const failed = (error: Error) => {
        const outcome = outcomeOf(error)
        if (outcome === "refused" || outcome === "unreachable") settle({ outcome, ...codeField(error) })
        else reject(error)
      }
      socket.once("error", failed)
      socket.once("message", (data, from) => {
        replies.push({ ...parse(data.toString()), from: { address: from.address, port: from.port } })
        settle({ outcome: "answered" })
      })
      const sent = (error: Error | null) => {
        if (error !== null) failed(error)
      }
      const payload = request.payload ?? "hello"
      if (request.unconnected === true) socket.send(payload, request.port, request.host, sent)
      else socket.send(payload, sent)
    })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject)
      socket.bind(
        {
          port: request.sourcePort ?? 0,
          exclusive: true,
          ...(request.sourceAddress === undefined ? {} : { address: request.sourceAddress })
        },
        resolve
      )
    })
    const early = request.unconnected === true ? undefined : await connected(socket, request)
    if (early !== undefined) return { ...early, replies }
    if (request.unconnected === true) socket.setBroadcast(true)
    let result = await next()
    for (let round = 1; round < (request.rounds ?? 1); round++) result = await next()
    return { ...result, replies, local: endpoint(socket.address()) }
  } finally {
    socket.close()
  }
}

/** Without a route, connecting already reports that, before anything is sent. */
function connected(
  socket: Dgram.Socket,
  request: UdpRequest
): Promise<Pick<UdpResult, "outcome" | "code"> | undefined> {
  return new Promise((resolve, reject) => {
    socket.connect(request.port, request.host, (error?: Error | null) => {
      if (error === undefined || error === null) resolve(undefined)
      else if (outcomeOf(error) === "unreachable") resolve({ outcome: "unreachable", ...codeField(error) })
      else reject(error)
    })
  })
}

function connect(request: TcpRequest | TransferRequest): Net.Socket {
  return Net.connect({
    host: request.host,
    port: request.port,
    ...(request.sourceAddress === undefined ? {} : { localAddress: request.sourceAddress }),
    ...(request.sourcePort === undefined ? {} : { localPort: request.sourcePort })
  })
}

function readLines(socket: Net.Socket, each: (line: string) => void): void {
  let rest = ""
  socket.setEncoding("latin1").on("data", (data) => {
    const parts = (rest + data).split("\n")
    rest = parts.pop() ?? ""
    for (const part of parts) each(part)
  })
}

function parse(text: string): Answer {
  const [, who, address, port, payload] = /^(\S+) ([0-9a-f.:%]\S*) (\d+) (.*)$/s.exec(text) ?? []
  if (who === undefined || address === undefined || payload === undefined) return { text }
  return { text, who, seen: { address, port: Number(port) }, payload }
}

function endpoint(info: Net.AddressInfo): Endpoint {
  return { address: info.address, port: info.port }
}

/** `undefined` for errors that do not come from the network, such as a source port that is in use. */
function outcomeOf(error: Error): TcpOutcome | undefined {
  switch (codeOf(error)) {
    case "ECONNREFUSED":
      return "refused"
    case "ETIMEDOUT":
      return "timeout"
    // A handshake was there, even if its end came before this process was told of it.
    case "ECONNRESET":
    case "EPIPE":
      return "reset"
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "EACCES":
    case "EPERM":
      return "unreachable"
    default:
      return undefined
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code
}

function codeField(error: unknown): { code?: string } {
  const code = codeOf(error)
  return code === undefined ? {} : { code }
}
