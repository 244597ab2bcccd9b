/** Every transport that reads untrusted bytes: how to send some, and whether it still answers afterwards. */
import type * as Net from "node:net"
import * as Path from "node:path"
import { Effect, type Scope } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { serveTcp } from "../../adapters/docker/PluginTcp.ts"
import { toWebHandler } from "../../adapters/docker/WebHandler.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { Method } from "../../src/protocol/Operations.ts"
import { temporaryFolder } from "../support/folders.ts"
import { openSession } from "../support/session.ts"
import { driver } from "./decoders.ts"
import { sendBytes } from "./http.ts"

export interface Opened {
  /** Ends when the other side is done with the input; fails where it never is. */
  readonly send: (bytes: Uint8Array) => Promise<unknown>
  /** The answer to a valid request. */
  readonly ask: () => Promise<string>
}

export interface Transport {
  readonly name: string
  /** The folder of test/fuzz/corpus with its first inputs. */
  readonly corpus: string
  readonly words: ReadonlyArray<string>
  /** Serves until the scope closes, with a driver that holds nothing. */
  readonly open: Effect.Effect<Opened, unknown, Scope.Scope>
  readonly answer: string
  /** How many inputs may be sent at once. */
  readonly atOnce: number
}

const httpWords = [
  "\r\n",
  ":",
  "Content-Length: 9\r\n",
  "Transfer-Encoding: chunked\r\n",
  "0\r\n\r\n",
  "chunked"
]
const rpcWords = [
  "\n",
  "{",
  "}",
  "[",
  "]",
  '"id"',
  '"method"',
  '"params"',
  '"Owner"',
  "null",
  "1e999",
  "\\ud800"
]

const request =
  "POST /PortMapper.ListPorts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
const listed = '{"Mappings":[]}\n'

const overSocket = (address: Net.NetConnectOpts): Opened => ({
  send: (bytes) => sendBytes(address, bytes),
  ask: async () => (await sendBytes(address, Buffer.from(request))).split("\r\n\r\n")[1] ?? ""
})

const onDriver = Effect.provideService(Driver, driver)

export const transports: ReadonlyArray<Transport> = [
  {
    name: "HTTP over a Unix socket",
    corpus: "http",
    words: httpWords,
    open: Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      yield* onDriver(serveUnix(path))
      return overSocket({ path })
    }),
    answer: listed,
    atOnce: 50
  },
  {
    name: "HTTP over TCP",
    corpus: "http",
    words: httpWords,
    open: Effect.gen(function* () {
      const { port } = yield* onDriver(serveTcp({ host: "127.0.0.1", port: 0 }))
      return overSocket({ host: "127.0.0.1", port })
    }),
    answer: listed,
    atOnce: 50
  },
  {
    name: "a fetch handler",
    corpus: "requests",
    words: ["{", "}", "[", "]", '"Reqs"', '"Labels"', '"Proto":6', '"FrontendPort":0', "\ufeff", "null"],
    open: Effect.gen(function* () {
      const handler = toWebHandler(driver)
      yield* Effect.addFinalizer(() => Effect.promise(handler.dispose))
      let count = 0
      const post = async (method: string, body: Uint8Array<ArrayBuffer>): Promise<string> => {
        const answer = await handler(new Request(`http://x/${method}`, { method: "POST", body }))
        const text = await answer.text()
        if (answer.status === 500) throw new Error(text)
        return text
      }
      return {
        send: (bytes) => post(Method.literals[count++ % Method.literals.length] ?? "", new Uint8Array(bytes)),
        ask: () => post("PortMapper.ListPorts", new Uint8Array(Buffer.from("{}")))
      }
    }),
    answer: listed,
    atOnce: 50
  },
  {
    name: "stdio",
    corpus: "rpc",
    words: rpcWords,
    open: Effect.gen(function* () {
      const session = yield* onDriver(openSession)
      const next = () =>
        Effect.runPromise(session.next) as Promise<{ readonly id?: unknown; readonly result?: unknown }>
      /** Whatever comes before, the answer to this comes last. */
      const ask = async () => {
        session.input.write('{"jsonrpc":"2.0","id":"asked","method":"PortMapper.ListPorts"}\n')
        for (;;) {
          const { id, result } = await next()
          if (id === "asked") return `${JSON.stringify(result)}\n`
        }
      }
      return {
        send: (bytes) => {
          session.input.write(bytes)
          session.input.write("\n")
          return ask()
        },
        ask
      }
    }),
    answer: listed,
    atOnce: 1
  }
]

/** Sends so many inputs, as many at once as the transport takes; fails where one never ends. */
export const sendAll = async (
  { send }: Opened,
  { atOnce }: Transport,
  inputs: Iterator<Uint8Array>,
  count: number
): Promise<void> => {
  for (let sent = 0; sent < count; sent += atOnce) {
    const some = Array.from(
      { length: Math.min(atOnce, count - sent) },
      () => inputs.next().value as Uint8Array
    )
    await Promise.all(some.map(send))
  }
}
