/** A session over two in-process streams; a test writes to it and reads its answers line by line. */
import { PassThrough } from "node:stream"
import { Effect, Fiber } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"

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
