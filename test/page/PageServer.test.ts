import * as Fs from "node:fs"
import * as Http from "node:http"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { PageFeed, Reader } from "../../adapters/page/PageFeed.ts"
import type { PageFile } from "../../adapters/page/PageFile.ts"
import { maxPages, servePageTcp, servePageUnix } from "../../adapters/page/PageServer.ts"
import { temporaryFolder } from "../support/folders.ts"
import { until } from "../support/until.ts"

const file: PageFile = {
  etag: '"tag"',
  policy: "default-src 'none'; script-src 'sha256-x'",
  bodies: [
    ["br", Buffer.from("compressed")],
    ["identity", Buffer.from("<!doctype html>")]
  ]
}

const makeFeed = () => {
  const readers = new Set<Reader>()
  const followed: Array<string | undefined> = []
  const feed: PageFeed = {
    state: Effect.succeed(Buffer.from('{"epoch":"e"}')),
    follow: (reader, lastEventId) => {
      followed.push(lastEventId)
      readers.add(reader)
      return () => void readers.delete(reader)
    }
  }
  return { feed, readers, followed }
}

const served = (feed: PageFeed, unreadTimeoutMillis?: number) =>
  Effect.gen(function* () {
    const socketPath = Path.join(yield* temporaryFolder, "page.sock")
    yield* servePageUnix(socketPath, { feed, file, hosts: ["ops.example"], unreadTimeoutMillis })
    return socketPath
  })

/** Until the head of the answer is there; its body is read by the caller. */
const open = (options: Http.RequestOptions) =>
  Effect.callback<Http.IncomingMessage>((resume) => {
    const request = Http.request({
      agent: false,
      ...options,
      headers: { Host: "localhost", ...options.headers }
    })
    request.on("response", (response) => resume(Effect.succeed(response)))
    request.on("error", (error) => resume(Effect.die(error)))
    request.end()
  })

const ask = (options: Http.RequestOptions) =>
  Effect.flatMap(open(options), (response) =>
    Effect.promise(async () => {
      let body = ""
      for await (const chunk of response) body += chunk
      return { status: response.statusCode, headers: response.headers, body }
    })
  )

describe("the page's server", () => {
  it.live("sends the page as it was built, with its policy, and not again to one that has it", () =>
    Effect.gen(function* () {
      const socketPath = yield* served(makeFeed().feed)
      assert.strictEqual(Fs.statSync(socketPath).mode & 0o777, 0o660)
      const plain = yield* ask({ socketPath, path: "/" })
      assert.deepStrictEqual([plain.status, plain.body], [200, "<!doctype html>"])
      const { date: _, ...headers } = plain.headers
      assert.deepStrictEqual(headers, {
        "cache-control": "no-cache",
        connection: "close",
        "content-length": "15",
        "content-security-policy": file.policy,
        "content-type": "text/html; charset=utf-8",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        etag: '"tag"',
        "referrer-policy": "no-referrer",
        vary: "Accept-Encoding",
        "x-content-type-options": "nosniff"
      })
      const compressed = yield* ask({ socketPath, path: "/", headers: { "Accept-Encoding": "gzip, br" } })
      assert.deepStrictEqual([compressed.headers["content-encoding"], compressed.body], ["br", "compressed"])
      const head = yield* ask({ socketPath, path: "/", method: "HEAD" })
      assert.deepStrictEqual([head.headers["content-length"], head.body], ["15", ""])
      const same = yield* ask({ socketPath, path: "/", headers: { "If-None-Match": '"tag"' } })
      assert.deepStrictEqual([same.status, same.body], [304, ""])
    })
  )

  it.live("refuses every other path and method, and a foreign Host, as JSON that no page may read", () =>
    Effect.gen(function* () {
      const socketPath = yield* served(makeFeed().feed)
      const status = (options: Http.RequestOptions) =>
        Effect.map(ask({ socketPath, path: "/api/state", ...options }), (answer) => {
          assert.isString(JSON.parse(answer.body).Err)
          assert.strictEqual(answer.headers["cache-control"], "no-store")
          assert.strictEqual(answer.headers["cross-origin-resource-policy"], "same-origin")
          assert.isUndefined(answer.headers["set-cookie"])
          assert.isUndefined(answer.headers["access-control-allow-origin"])
          return answer.headers.allow === undefined ? answer.status : [answer.status, answer.headers.allow]
        })
      assert.deepStrictEqual(
        yield* Effect.all([
          status({ path: "/PortMapper.MapPorts", method: "POST" }),
          status({ path: "/metrics" }),
          status({ method: "POST" }),
          status({ method: "DELETE" }),
          status({ headers: { Host: "evil.example" } }),
          status({ headers: { Origin: "http://evil.example" } })
        ]),
        [404, 404, [405, "GET, HEAD"], [405, "GET, HEAD"], 421, 403]
      )
      const state = yield* ask({ socketPath, path: "/api/state", headers: { Host: "ops.example" } })
      assert.deepStrictEqual([state.status, state.body], [200, '{"epoch":"e"}'])
    })
  )

  it.live("streams events until the page leaves, and goes on after the one that it had last", () =>
    Effect.gen(function* () {
      const { feed, readers, followed } = makeFeed()
      const socketPath = yield* served(feed)
      const response = yield* open({
        socketPath,
        path: "/api/events",
        headers: { "Last-Event-ID": "e-7" }
      })
      assert.strictEqual(response.headers["content-type"], "text/event-stream")
      assert.strictEqual(response.headers["cache-control"], "no-store")
      let text = ""
      response.on("data", (chunk) => {
        text += chunk
      })
      yield* until(Effect.sync(() => readers.size === 1))
      for (const reader of readers) reader.write([Buffer.from("data: "), Buffer.from("1\n\n")])
      yield* until(Effect.sync(() => text === "data: 1\n\n"))
      assert.deepStrictEqual(followed, ["e-7"])
      response.destroy()
      yield* until(Effect.sync(() => readers.size === 0))
      yield* ask({ socketPath, path: "/api/events", method: "HEAD" })
      assert.strictEqual(followed.length, 1)
    })
  )

  it.live("notices whether a page has read everything", () =>
    Effect.gen(function* () {
      const { feed, readers } = makeFeed()
      const socketPath = yield* served(feed)
      const response = yield* open({ socketPath, path: "/api/events" })
      yield* until(Effect.sync(() => readers.size === 1))
      const [reader] = readers
      assert.isTrue(reader?.isReady())
      reader?.write([Buffer.alloc(8 << 20, "x")])
      assert.isFalse(reader?.isReady())
      response.resume()
      yield* until(Effect.sync(() => reader?.isReady() === true))
    })
  )

  it.live("drops a page that reads nothing any more, and no page that has read everything", () =>
    Effect.gen(function* () {
      const { feed, readers } = makeFeed()
      const socketPath = yield* served(feed, 100)
      const idle = yield* open({ socketPath, path: "/api/events" })
      idle.resume()
      yield* until(Effect.sync(() => readers.size === 1))
      const stuck = yield* open({ socketPath, path: "/api/events" })
      stuck.on("error", () => {})
      yield* until(Effect.sync(() => readers.size === 2))
      for (const reader of readers) reader.write([Buffer.alloc(8 << 20, "x")])
      yield* until(Effect.sync(() => readers.size === 1))
      assert.isFalse(idle.destroyed)
    })
  )

  it.live("serves a hundred pages, refuses one more until one has left, and ends them all with itself", () =>
    Effect.gen(function* () {
      const { feed, readers } = makeFeed()
      const pages = yield* Effect.scoped(
        Effect.gen(function* () {
          const socketPath = yield* served(feed)
          const opened = yield* Effect.forEach(
            Array.from({ length: maxPages }),
            () => open({ socketPath, path: "/api/events" }),
            { concurrency: 10 }
          )
          for (const page of opened) page.resume()
          const refused = yield* ask({ socketPath, path: "/api/events" })
          assert.deepStrictEqual([refused.status, refused.headers["retry-after"]], [503, "10"])
          assert.strictEqual((yield* ask({ socketPath, path: "/api/state" })).status, 200)
          opened.pop()?.destroy()
          yield* until(Effect.sync(() => readers.size === maxPages - 1))
          opened.push(yield* open({ socketPath, path: "/api/events" }))
          opened.at(-1)?.resume()
          return opened
        })
      )
      // Each stream ends in order, so that a browser connects again at once.
      yield* until(Effect.sync(() => pages.every(({ complete }) => complete)))
      assert.strictEqual(readers.size, 0)
    })
  )

  it.live("listens on a loopback port without TLS, beyond it only with certificates", () =>
    Effect.gen(function* () {
      const { feed } = makeFeed()
      const { port } = yield* servePageTcp({ feed, file, hosts: [], host: "127.0.0.1", port: 0 })
      const at = (headers: Http.OutgoingHttpHeaders) =>
        Effect.map(ask({ host: "127.0.0.1", port, path: "/api/state", headers }), ({ status }) => status)
      assert.strictEqual(yield* at({ Host: `127.0.0.1:${port}` }), 200)
      assert.strictEqual(yield* at({ Host: `rebound.example:${port}` }), 421)
      const beyond = yield* Effect.flip(servePageTcp({ feed, file, hosts: [], host: "0.0.0.0", port: 0 }))
      assert.strictEqual(beyond._tag, "TlsFilesMissing")
    })
  )
})
