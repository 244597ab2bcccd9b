/** A session over two in-process streams; a test writes to it and reads its answers line by line. */
import { PassThrough } from "node:stream"
import { Effect, Fiber } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { Driver } from "../../src/protocol/Driver.ts"

export const openSession = Effect.gen(function* () {
  const input = new PassThrough()
  const output = new PassThrough()
  const fiber = yield* Effect.forkScoped(serve({ input, output }), { startImmediately: true })
  const lines = readLines(output)
  return {
    input,
    output,
    fiber,
    /** The next answer line, as a value. */
    next: Effect.promise(() => lines.next()).pipe(Effect.map(({ value }) => value && JSON.parse(value))),
    send: (...messages: ReadonlyArray<string | object>) =>
      Effect.sync(() => {
        for (const message of messages) {
          input.write(`${typeof message === "string" ? message : JSON.stringify(message)}\n`)
        }
      }),
    end: Effect.andThen(
      Effect.sync(() => input.end()),
      Fiber.join(fiber)
    ),
    /** All answer lines not taken yet, once the session has ended. */
    rest: Effect.suspend(() => {
      output.end()
      return Effect.promise(async () => {
        const values: Array<unknown> = []
        for (let line = await lines.next(); !line.done; line = await lines.next())
          values.push(JSON.parse(line.value))
        return values
      })
    })
  }
})

async function* readLines(output: PassThrough): AsyncGenerator<string> {
  let text = ""
  for await (const chunk of output) {
    text += chunk
    for (let end = text.indexOf("\n"); end !== -1; end = text.indexOf("\n")) {
      yield text.slice(0, end)
      text = text.slice(end + 1)
    }
  }
  if (text !== "") throw new Error(`half a line: ${text}`)
}

export const rpc = (id: unknown, method: string, params?: unknown) => ({ jsonrpc: "2.0", id, method, params })

export const withDriver =
  (driver: Driver["Service"]) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, Driver, driver)

const granted = (port: number) => ({
  Proto: 6,
  BackendIP: "172.17.0.2",
  BackendPort: 80,
  FrontendIP: "0.0.0.0",
  FrontendPort: port,
  DiscardReq: false,
  AllowForwarding: true,
  NAT: { FromAddr: "0.0.0.0", FromPort: port },
  Error: null
})

export const mapped = (id: unknown, port: number) => ({
  jsonrpc: "2.0",
  result: { PortBindings: [granted(port)], Err: "" },
  id
})

/** The answer to `activateLine`. */
export const activated = { jsonrpc: "2.0", result: { Implements: ["PortMapper"] }, id: 1 }

export const activateLine = JSON.stringify(rpc(1, "Plugin.Activate"))
