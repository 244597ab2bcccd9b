/** The HTTP client against servers with scripted answers, byte for byte. */
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { type HttpError, httpClient, keepAliveClient } from "../../adapters/node/HttpClient.ts"
import { temporaryFolder } from "../support/folders.ts"

/** Serves each connection; `requests` are the requests received. */
const serving = Effect.fnUntraced(function* (onConnection: (socket: Net.Socket) => void) {
  const path = Path.join(yield* temporaryFolder, "p.sock")
  const requests: Array<string> = []
  yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((socket) => {
        socket.on("error", () => {}).on("data", (bytes) => requests.push(bytes.toString()))
        onConnection(socket)
      }).listen(path, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => void server.close())
  )
  return { address: { _tag: "Pipe", path } as const, requests }
})

const answering = (text: string, hangUp: boolean) =>
  serving((socket) =>
    socket.on("data", () => {
      socket.write(text)
      if (hangUp) socket.end()
    })
  )

const failureText = ({ code, connected, message }: HttpError) => `${code} ${connected}: ${message}`
const head = "HTTP/1.1 200 OK\r\n"
const get = { method: "GET", path: "/x", headers: { Host: "h" } }

describe("an answer", () => {
  const rows: ReadonlyArray<readonly [title: string, text: string, hangUp: boolean, expected: string]> = [
    ["with a length", `${head}Content-Length: 3\r\n\r\n\u00e9!`, false, "200 \u00e9!"],
    [
      "in chunks",
      `${head}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n`,
      false,
      "200 abc"
    ],
    ["that ends with the connection", `${head}\r\nabc`, true, "200 abc"],
    ["of the maximum length", `${head}Content-Length: 8\r\n\r\n12345678`, false, "200 12345678"],
    [
      "over the maximum length",
      `${head}Content-Length: 9\r\n\r\n123456789`,
      false,
      "HTTP_TOO_LONG true: it is longer than 8 bytes"
    ],
    [
      "over the maximum length, in chunks without an end",
      `${head}Transfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n`,
      false,
      "HTTP_TOO_LONG true: it is longer than 8 bytes"
    ],
    ["that breaks off", `${head}Content-Length: 9\r\n\r\n1`, true, "ECONNRESET true: aborted"],
    [
      "that breaks off in a chunk",
      `${head}Transfer-Encoding: chunked\r\n\r\n9\r\n1`,
      true,
      "ECONNRESET true: aborted"
    ],
    ["that breaks off in its head", "HTTP/1.1 200 OK\r\nContent-", true, "ECONNRESET true: socket hang up"],
    ["that never begins", "", true, "ECONNRESET true: socket hang up"],
    [
      "that never ends",
      `${head}Content-Length: 9\r\n\r\n1`,
      false,
      "HTTP_ANSWER_TIMEOUT true: none came within 0.3 s"
    ]
  ]
  for (const [title, text, hangUp, expected] of rows)
    it.live(`${title} is read, or fails with the reason`, () =>
      Effect.gen(function* () {
        const { address } = yield* answering(text, hangUp)
        const http = httpClient(address, { answerTimeoutMillis: 300, maxBodyBytes: 8 })
        const outcome = yield* Effect.match(http.ask(get), {
          onFailure: failureText,
          onSuccess: ({ status, body }) => `${status} ${body}`
        })
        assert.strictEqual(outcome, expected)
      }).pipe(Effect.scoped)
    )

  it.live("of another protocol fails with the parser's code", () =>
    Effect.gen(function* () {
      const { address } = yield* answering("SSH-2.0-OpenSSH_9.2\r\n", false)
      assert.match((yield* Effect.flip(httpClient(address).ask(get))).code, /^HPE_/)
    }).pipe(Effect.scoped)
  )

  it.live("may be read while it arrives; its connection ends with the scope", () =>
    Effect.gen(function* () {
      const closed = yield* Deferred.make<void>()
      const { address } = yield* serving((socket) => {
        socket.on("data", () => socket.write(`${head}Transfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n`))
        socket.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
      })
      const first = Effect.gen(function* () {
        const response = yield* httpClient(address).open(get)
        return yield* Stream.runHead(Stream.fromAsyncIterable<Buffer, unknown>(response, (error) => error))
      })
      const chunk = yield* Effect.scoped(first)
      assert.strictEqual(`${chunk._tag === "Some" ? chunk.value : ""}`, "a\n")
      yield* Deferred.await(closed)
    }).pipe(Effect.scoped)
  )
})

describe("a request", () => {
  it.live("whose headers are an array is sent as written", () =>
    Effect.gen(function* () {
      const { address, requests } = yield* answering(`${head}Content-Length: 0\r\n\r\n`, false)
      const headers = ["b", "1", "A", "2", "a", "3", "content-length", "2"]
      yield* httpClient(address).ask({ method: "POST", path: "/y", headers, body: "{}" })
      assert.deepStrictEqual(
        requests.join(""),
        "POST /y HTTP/1.1\r\nb: 1\r\nA: 2\r\na: 3\r\ncontent-length: 2\r\nConnection: close\r\n\r\n{}"
      )
    }).pipe(Effect.scoped)
  )

  it.live("is sent again, once, where a kept connection was just being closed", () =>
    Effect.gen(function* () {
      let connections = 0
      const { address, requests } = yield* serving((socket) => {
        const lasting = connections++ > 0
        let answered = 0
        socket.on("data", () => {
          if (answered++ > 0 && !lasting) socket.destroy()
          else socket.write(`${head}Content-Length: 0\r\n\r\n`)
        })
      })
      const http = yield* keepAliveClient(address, 1)
      yield* http.ask(get)
      yield* http.ask(get)
      yield* http.ask(get)
      assert.deepStrictEqual([connections, requests.length], [2, 4])
    }).pipe(Effect.scoped)
  )

  it.live("on its own connection waits for no other", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      let connections = 0
      const { address } = yield* serving((socket) => {
        const silent = connections++ === 0
        socket.on("data", () => {
          if (silent) Deferred.doneUnsafe(begun, Effect.void)
          else socket.write(`${head}Content-Length: 0\r\n\r\n`)
        })
      })
      const http = yield* keepAliveClient(address, 1)
      const waiting = yield* Effect.forkChild(http.ask(get))
      yield* Deferred.await(begun)
      yield* http.ask({ ...get, alone: true })
      yield* Fiber.interrupt(waiting)
      yield* http.ask(get)
      assert.strictEqual(connections, 3)
    }).pipe(Effect.scoped)
  )
})
