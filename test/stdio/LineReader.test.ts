import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { maxLineBytes } from "../../adapters/stdio/LineReader.ts"
import { echo } from "../support/drivers.ts"
import { activated, activateLine, openSession, withDriver } from "../support/session.ts"

/** All answers of a session to these bytes. */
const answersTo = (bytes: string | Buffer) =>
  Effect.gen(function* () {
    const session = yield* openSession
    session.input.end(bytes)
    yield* Fiber.join(session.fiber)
    return yield* session.rest
  })

describe("a session's lines", () => {
  it.live("may end in CRLF, be blank, come byte by byte, or lack the end of the last one", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* answersTo(`${activateLine}\r\n\r\n \t\n${activateLine}`), [
        activated,
        activated
      ])
      const session = yield* openSession
      for (const byte of Buffer.from(`${activateLine}\r\n${activateLine}`)) {
        session.input.write(Buffer.from([byte]))
        yield* Effect.promise(() => new Promise(setImmediate))
      }
      yield* session.end
      assert.deepStrictEqual(yield* session.rest, [activated, activated])
    }).pipe(withDriver(echo))
  )

  it.live("over the limit are skipped and answered, and the session goes on", () =>
    Effect.gen(function* () {
      const refused = {
        jsonrpc: "2.0",
        error: {
          code: -32600,
          message: "Invalid Request",
          data: { detail: "the message is over the limit of 1048576 bytes" }
        },
        id: null
      }
      const padded = (bytes: number) => activateLine + " ".repeat(bytes - activateLine.length)
      assert.deepStrictEqual(
        yield* answersTo(
          [
            padded(maxLineBytes),
            padded(maxLineBytes + 1),
            activateLine,
            "x".repeat(5_000_000),
            activateLine
          ].join("\n")
        ),
        [activated, refused, activated, refused, activated]
      )
      assert.deepStrictEqual(yield* answersTo("x".repeat(maxLineBytes + 1)), [refused])
    }).pipe(withDriver(echo))
  )

  it.live("with invalid UTF-8 contain U+FFFD in its place", () =>
    Effect.suspend(() => {
      const seen: Array<string> = []
      return Effect.gen(function* () {
        const bytes = Buffer.from(
          '{"jsonrpc":"2.0","id":"!","method":"MapPorts","params":{"Labels":{"a":"!!"}}}'
        ).map((byte) => (byte === 0x21 ? 0xff : byte))
        const answers = yield* answersTo(Buffer.from(bytes))
        assert.deepStrictEqual(answers, [
          { jsonrpc: "2.0", result: { PortBindings: [], Err: "" }, id: "\ufffd" }
        ])
        assert.deepStrictEqual(seen, ["\ufffd\ufffd"])
      }).pipe(
        withDriver({
          ...echo,
          mapPorts: ({ labels }) =>
            Effect.sync(() => {
              seen.push(...labels.values())
              return []
            })
        })
      )
    })
  )

  it.live("with a byte order mark are refused as no JSON, as over HTTP", () =>
    Effect.gen(function* () {
      const [refused] = yield* answersTo(`\ufeff${activateLine}`)
      assert.deepStrictEqual(refused, {
        jsonrpc: "2.0",
        error: {
          code: -32700,
          message: "Parse error",
          data: { detail: "invalid character 'ï' looking for beginning of value" }
        },
        id: null
      })
    }).pipe(withDriver(echo))
  )
})
