import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { CniError } from "../../adapters/cni/CniError.ts"
import { connect } from "../../adapters/cni/SocketCaller.ts"
import { temporaryFolder } from "../support/socket.ts"

/** A server that answers each request with these pieces, and hangs up after the last where there is nothing more. */
const answering = Effect.fnUntraced(function* (pieces: ReadonlyArray<string>, hangUp = false) {
  const path = Path.join(yield* temporaryFolder, "p.sock")
  const requests: Array<string> = []
  yield* Effect.acquireRelease(
    Effect.callback<Net.Server>((resume) => {
      const server = Net.createServer((socket) => {
        socket.on("data", async (request) => {
          requests.push(request.toString())
          for (const piece of pieces) {
            socket.write(piece)
            await new Promise((done) => setTimeout(done, 5))
          }
          if (hangUp) socket.end()
        })
      }).listen(path, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => void server.close())
  )
  return { path, requests }
})

const ask = (path: string) =>
  Effect.promise(async () => {
    const caller = await connect(path)
    if (caller === undefined) return "nobody"
    try {
      const first = await caller.call("UnmapPorts", { a: "é" }, "cni:c1/eth0")
      const again = await caller.call("UnmapPorts", { a: "é" }, "cni:c1/eth0")
      assert.deepStrictEqual(again, first)
      return first
    } catch (error) {
      if (!(error instanceof CniError)) throw error
      return `${error.code} ${error.message}`
    } finally {
      await caller.close()
    }
  })

const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

describe("the running plugin", () => {
  const rows: ReadonlyArray<readonly [title: string, pieces: ReadonlyArray<string>, expected: unknown]> = [
    ["in one piece", [`${head}Content-Length: 7\r\n\r\n{"a":1}`], { a: 1 }],
    ["in many pieces", [...`${head}Content-Length: 10\r\n\r\n{"a":"é"}`], { a: "é" }],
    [
      "in chunks",
      [`${head}Transfer-Encoding: chunked\r\n\r\n3\r\n{"a`, "\r", '\n4\r\n":1}\r\n0\r\n\r\n'],
      { a: 1 }
    ],
    ["with a refusal", ['HTTP/1.1 500 X\r\nContent-Length: 14\r\n\r\n{"Err":"no"}\r\n'], "100 no"],
    ["with a refusal in a success", [`${head}Content-Length: 12\r\n\r\n{"Err":"no"}`], "100 no"],
    ["with a fault of the request", ['HTTP/1.1 400 X\r\nContent-Length: 12\r\n\r\n{"Err":"no"}'], "7 no"],
    ["that it is stopping", ['HTTP/1.1 503 X\r\nContent-Length: 12\r\n\r\n{"Err":"no"}'], "11 no"],
    ["with a success of no JSON, as an unmap may", [`${head}Content-Length: 0\r\n\r\n`], {}]
  ]
  for (const [title, pieces, expected] of rows)
    it.live(`answers ${title}`, () =>
      Effect.gen(function* () {
        const { path } = yield* answering(pieces)
        assert.deepStrictEqual(yield* ask(path), expected)
      }).pipe(Effect.scoped)
    )

  it.live("is asked as the Engine asks, in the name of the owner", () =>
    Effect.gen(function* () {
      const { path, requests } = yield* answering([`${head}Content-Length: 2\r\n\r\n{}`])
      yield* ask(path)
      const request =
        'POST /PortMapper.UnmapPorts HTTP/1.1\r\nHost: plugin.moby.localhost\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\nPortmapper-Owner: cni:c1/eth0\r\nContent-Length: 10\r\n\r\n{"a":"é"}'
      assert.deepStrictEqual(requests, [request, request])
    }).pipe(Effect.scoped)
  )

  it.live("may hang up, which asks to be tried again", () =>
    Effect.gen(function* () {
      const { path } = yield* answering([`${head}Content-Length: 9\r\n\r\n{`], true)
      assert.strictEqual(
        yield* ask(path),
        `11 PortMapper.UnmapPorts over ${path} failed: the connection was closed before an answer`
      )
    }).pipe(Effect.scoped)
  )

  it.live("is not there", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      assert.strictEqual(yield* ask(Path.join(folder, "p.sock")), "nobody")
    }).pipe(Effect.scoped)
  )
})
