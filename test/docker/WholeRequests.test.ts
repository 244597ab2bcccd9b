import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { fuzzInputs } from "../../src/testing/index.ts"
import { seed } from "../property/seed.ts"
import { echo } from "../support/drivers.ts"
import { hostileRequests } from "../support/hostileRequests.ts"
import { mapRequest } from "../support/requests.ts"
import { socketFor } from "../support/socket.ts"
import { turns } from "../support/until.ts"

const page = Effect.succeed({ contentType: "text/plain", body: "ok\n" })
const options = { pages: { "/healthz": page } }

const requestOf = (path: string, body: string, ...lines: ReadonlyArray<string>): string =>
  [
    `POST ${path} HTTP/1.1`,
    "Host: plugin.moby.localhost",
    "User-Agent: Go-http-client/1.1",
    `Content-Length: ${Buffer.byteLength(body)}`,
    "Accept: application/vnd.docker.plugins.v1.2+json",
    ...lines,
    "",
    body
  ].join("\r\n")

const map = (port: number): string =>
  requestOf("/PortMapper.MapPorts", `${JSON.stringify(mapRequest(port))}\n`)

/** Several answers in a row, each as its status and body. */
class Client {
  private received = Buffer.alloc(0)
  private wake = () => {}
  readonly socket: Net.Socket

  constructor(path: string) {
    this.socket = Net.connect(path)
    this.socket.on("data", (chunk) => {
      this.received = Buffer.concat([this.received, chunk])
      this.wake()
    })
    this.socket.on("error", () => {}).on("close", () => this.wake())
  }

  write(bytes: Uint8Array | string): void {
    if (this.socket.writable) this.socket.write(bytes)
  }

  async answer(): Promise<string> {
    for (;;) {
      const end = this.received.indexOf("\r\n\r\n")
      const head = this.received.toString("latin1", 0, Math.max(end, 0))
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (end !== -1 && this.received.length >= end + 4 + length) {
        const body = this.received.toString("utf8", end + 4, end + 4 + length)
        this.received = this.received.subarray(end + 4 + length)
        return `${head.split(" ")[1]} ${body}`
      }
      if (this.socket.closed) return "closed"
      await new Promise<void>((resolve) => {
        this.wake = resolve
      })
    }
  }
}

/**
 * A connection's answer to these bytes: as the first request that it carries or, for `node:http` alone, the second.
 */
const answerTo = async (path: string, bytes: Uint8Array, way: "short" | "long"): Promise<string> => {
  const client = new Client(path)
  try {
    if (way === "long") {
      client.write("GET /healthz HTTP/1.1\r\n\r\n")
      assert.strictEqual(await client.answer(), "200 ok\n")
    }
    client.write(bytes)
    // A request for more bytes than there are gets them, so that each is answered.
    for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve))
    client.write(Buffer.alloc(1024 * 1024, " "))
    client.write("\r\n\r\n")
    return await client.answer()
  } finally {
    client.socket.destroy()
  }
}

describe("a request in one packet", () => {
  it.live(`gets the same answer as from node:http (PORTMAPPER_SEED=${seed})`, () =>
    Effect.gen(function* () {
      const path = yield* socketFor(echo, options)
      const corpus = [
        map(8080),
        requestOf("/Plugin.Activate", ""),
        requestOf("/PortMapper.UnmapPorts", "{}", "Connection: keep-alive")
      ]
      const words = [
        "\r\n",
        "\n",
        "\r",
        "\0",
        ":",
        " ",
        "\t",
        "\xa0",
        "Content-Length: 1",
        "Host",
        "Portmapper-Owner: cli"
      ]
      const inputs = fuzzInputs(
        seed,
        [...corpus, ...hostileRequests.map(({ bytes }) => bytes)].map((text) => Buffer.from(text, "latin1")),
        words.map((word) => Buffer.from(word, "latin1"))
      )
      const mutated = Array.from({ length: 200 }, () => inputs.next().value)
      for (const bytes of [...corpus.map((text) => Buffer.from(text)), ...mutated]) {
        const [short, long] = yield* Effect.promise(() =>
          Promise.all([answerTo(path, bytes, "short"), answerTo(path, bytes, "long")])
        )
        assert.strictEqual(short, long, JSON.stringify(Buffer.from(bytes).toString("latin1")))
      }
    })
  )

  it.live("is answered before those sent after it, however the packets are cut", () =>
    Effect.gen(function* () {
      const path = yield* socketFor(echo, options)
      const all = [map(1), map(2), map(3), "GET /healthz HTTP/1.1\r\n\r\n", map(4)].join("")
      for (const size of [all.length, map(1).length, map(1).length + 1, 100, 7]) {
        const client = new Client(path)
        for (let at = 0; at < all.length; at += size) client.write(all.slice(at, at + size))
        const answers: Array<string> = []
        for (let count = 0; count < 5; count++) answers.push(yield* Effect.promise(() => client.answer()))
        client.socket.destroy()
        assert.deepStrictEqual(
          answers.map((text) => /"FrontendPort":(\d+)/.exec(text)?.[1] ?? text),
          ["1", "2", "3", "200 ok\n", "4"]
        )
      }
    })
  )

  for (const packets of [1, 2])
    it.live(`in ${packets} is answered though the client sends no more, then the connection is closed`, () =>
      Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const proceed = yield* Deferred.make<void>()
        const path = yield* socketFor({
          ...echo,
          unmapPorts: () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(proceed))
        })
        const client = new Client(path)
        const request = requestOf("/PortMapper.UnmapPorts", "{}")
        if (packets === 2) client.write(request.slice(0, 30))
        client.socket.end(packets === 2 ? request.slice(30) : request)
        yield* Deferred.await(begun)
        yield* turns()
        yield* Deferred.succeed(proceed, undefined)
        assert.strictEqual(yield* Effect.promise(() => client.answer()), "200 {}\n")
        assert.strictEqual(yield* Effect.promise(() => client.answer()), "closed")
      })
    )

  it.live("is rolled back where its client disconnects before the answer", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const undone = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
      const path = yield* socketFor({
        ...echo,
        mapPorts: () =>
          Effect.addFinalizer((exit) => Deferred.succeed(undone, exit)).pipe(
            Effect.andThen(Deferred.succeed(begun, undefined)),
            Effect.andThen(Effect.never)
          )
      })
      const client = new Client(path)
      client.write(map(1))
      yield* Deferred.await(begun)
      client.socket.destroy()
      assert.isTrue(Exit.hasInterrupts(yield* Deferred.await(undone)))
    })
  )

  it.live("is finished when the server stops, and its connection is closed then", () =>
    Effect.gen(function* () {
      const begun = yield* Deferred.make<void>()
      const proceed = yield* Deferred.make<void>()
      const connected = yield* Deferred.make<Client>()
      const stopping = yield* Deferred.make<void>()
      const driver = {
        ...echo,
        unmapPorts: () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(proceed))
      }
      const server = yield* Effect.forkChild(
        Effect.scoped(
          Effect.gen(function* () {
            const client = new Client(yield* socketFor(driver))
            yield* Deferred.succeed(connected, client)
            client.write(requestOf("/PortMapper.UnmapPorts", "{}"))
            yield* Deferred.await(stopping)
          })
        ),
        { startImmediately: true }
      )
      const client = yield* Deferred.await(connected)
      yield* Deferred.await(begun)
      yield* Deferred.succeed(stopping, undefined)
      yield* Deferred.succeed(proceed, undefined)
      assert.strictEqual(yield* Effect.promise(() => client.answer()), "200 {}\n")
      assert.strictEqual(yield* Effect.promise(() => client.answer()), "closed")
      yield* Fiber.join(server)
    })
  )
})
