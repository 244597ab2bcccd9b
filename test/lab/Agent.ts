/**
 * The typed side of `agent-process.ts`: traffic from and to one network namespace, without a new process for each
 * packet. The process starts with the first request and ends with the lab. An outcome such as `refused` is an answer;
 * an `AgentError` is an operation that failed to start, with the system's code (`EADDRINUSE`).
 */
import type { ChildProcess } from "node:child_process"
import { Effect, Schema } from "effect"
import type {
  AgentAnswer,
  EchoRequest,
  Endpoint,
  HoldRequest,
  Opened,
  Operations,
  TcpRequest,
  TcpResult,
  TransferProgress,
  TransferRequest,
  UdpRequest,
  UdpResult
} from "./AgentProtocol.ts"
import { LabError } from "./Process.ts"
import { exchangeMillis, patienceMillis } from "./patience.ts"
import { follow } from "./Running.ts"

export class AgentError extends Schema.TaggedError<AgentError>()("AgentError", {
  /** The operation with its request, as sent. */
  operation: Schema.String,
  code: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.operation}: ${this.detail}`
  }
}

/** A server or socket that the agent keeps open until it is stopped or the lab ends. Stopping twice is allowed. */
export interface Held {
  readonly address: string
  readonly port: number
  readonly stop: Effect.Effect<void, AgentError>
}

export interface Transfer extends Held {
  readonly progress: Effect.Effect<TransferProgress, AgentError>
  /** Polls until `rounds` more have come back. Fails when the transfer ends first, or after `timeoutMillis` (default `patienceMillis`). */
  readonly advance: (
    rounds: number,
    options?: { readonly timeoutMillis?: number }
  ) => Effect.Effect<TransferProgress, AgentError | LabError>
}

export interface Agent {
  /** Starts the process ahead of the first request; returns its pid. */
  readonly start: Effect.Effect<number, AgentError>
  readonly echo: (request: EchoRequest) => Effect.Effect<Held, AgentError>
  readonly hold: (request: HoldRequest) => Effect.Effect<Held, AgentError>
  readonly tcp: (request: TcpRequest) => Effect.Effect<TcpResult, AgentError>
  readonly udp: (request: UdpRequest) => Effect.Effect<UdpResult, AgentError>
  /** A connection that sends a line, awaits its echo, and repeats. Fails where the handshake does. */
  readonly transfer: (request: TransferRequest) => Effect.Effect<Transfer, AgentError>
  /** Ends the process, and with it every socket it holds; the next request starts another. */
  readonly stop: Effect.Effect<void>
}

/** `launch` starts `agent-process.ts` in its namespace. The caller must `stop` the agent. */
export const make = (launch: () => ChildProcess): Agent => {
  let current: Connection | undefined

  const ask = <Name extends keyof Operations>(
    op: Name,
    request: Operations[Name][0],
    timeoutMillis = patienceMillis
  ): Effect.Effect<Operations[Name][1], AgentError> =>
    Effect.callback<Operations[Name][1], AgentError>((resume) => {
      if (current === undefined || current.dead) current = connect(launch())
      const operation = `${op} ${JSON.stringify(request)}`
      const fail = (code: string, detail: string) =>
        resume(Effect.fail(new AgentError({ operation, code, detail })))
      const connection = current
      const timer = setTimeout(() => {
        connection.waiting.delete(id)
        fail("NoAnswer", `no answer within ${timeoutMillis} ms`)
      }, timeoutMillis)
      const id = connection.send(op, request, (answer) => {
        clearTimeout(timer)
        if (answer.code !== undefined) fail(answer.code, answer.detail ?? answer.code)
        else resume(Effect.succeed(answer.ok as Operations[Name][1]))
      })
      return Effect.sync(() => {
        clearTimeout(timer)
        connection.waiting.delete(id)
      })
    })

  const held = (opened: Opened): Held => ({
    ...(opened.local satisfies Endpoint),
    stop: Effect.asVoid(ask("stop", { handle: opened.handle }))
  })

  return {
    start: Effect.map(ask("ping", {}), ({ pid }) => pid),
    echo: (request) => Effect.map(ask("echo", request), held),
    hold: (request) => Effect.map(ask("hold", request), held),
    tcp: (request) => ask("tcp", request, (request.timeoutMillis ?? exchangeMillis) + patienceMillis),
    udp: (request) =>
      ask("udp", request, (request.timeoutMillis ?? exchangeMillis) * (request.rounds ?? 1) + patienceMillis),
    transfer: (request) =>
      Effect.map(
        ask("transfer", request, (request.timeoutMillis ?? exchangeMillis) + patienceMillis),
        (opened) => {
          const progress = ask("progress", { handle: opened.handle })
          return { ...held(opened), progress, advance: advance(progress) }
        }
      ),
    stop: Effect.suspend(() => {
      const connection = current
      current = undefined
      return connection === undefined ? Effect.void : connection.stop
    })
  }
}

interface Connection {
  dead: boolean
  readonly waiting: Map<number, (answer: AgentAnswer) => void>
  readonly send: (op: string, request: unknown, then: (answer: AgentAnswer) => void) => number
  readonly stop: Effect.Effect<void>
}

const connect = (child: ChildProcess): Connection => {
  const waiting: Connection["waiting"] = new Map()
  let lastId = 0
  let rest = ""
  const connection: Connection = {
    dead: false,
    waiting,
    send: (op, request, then) => {
      lastId++
      waiting.set(lastId, then)
      child.stdin?.write(`${JSON.stringify({ id: lastId, op, request })}\n`)
      return lastId
    },
    stop: follow(child, "agent", 500).stop
  }
  let complaint = ""
  child.stderr?.on("data", (text: string) => {
    complaint += text
  })
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (rest + text).split("\n")
    rest = lines.pop() ?? ""
    for (const line of lines) {
      const answer = JSON.parse(line) as AgentAnswer
      waiting.get(answer.id)?.(answer)
      waiting.delete(answer.id)
    }
  })
  const dead = (detail: string) => {
    connection.dead = true
    for (const [id, then] of waiting) then({ id, code: "AgentEnded", detail })
    waiting.clear()
  }
  child.on("error", (error) => dead(error.message))
  child.on("close", () => dead(`the agent ended: ${complaint.trim()}`))
  return connection
}

const advance =
  (progress: Transfer["progress"]): Transfer["advance"] =>
  (rounds, options = {}) =>
    Effect.gen(function* () {
      const timeoutMillis = options.timeoutMillis ?? patienceMillis
      const deadline = performance.now() + timeoutMillis
      const before = yield* progress
      while (true) {
        const now = yield* progress
        if (now.rounds >= before.rounds + rounds) return now
        if (now.state !== "open" || performance.now() > deadline)
          return yield* new LabError({
            operation: `transfer advances by ${rounds}`,
            detail: `after ${timeoutMillis} ms at most: ${JSON.stringify(now)}, before ${JSON.stringify(before)}`
          })
        yield* Effect.sleep(10)
      }
    })
