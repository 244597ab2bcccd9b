import * as Http from "node:http"
import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import {
  collectGarbage,
  descriptors,
  malformed,
  malformedCount,
  malformedTimeoutMillis
} from "../support/abuse.ts"
import { echo } from "../support/drivers.ts"
import { raw, request } from "../support/http.ts"
import { mapRequest } from "../support/requests.ts"
import { socketFor } from "../support/socket.ts"
import { until } from "../support/until.ts"

const ask = (...args: Parameters<typeof request>) => Effect.promise(() => request(...args))
const mapBody = (port: number) => JSON.stringify(mapRequest(port))

/** Runs it, and checks that the same descriptors are open afterwards, once pending closes are done. */
const withoutLeak = <E, R>(run: Effect.Effect<void, E, R>) =>
  Effect.gen(function* () {
    const before = descriptors()
    yield* run
    yield* until(Effect.sync(descriptors), (open) => open <= before + 2)
  })

describe("the Unix socket", () => {
  it.live("serves a thousand clients at once", () =>
    Effect.gen(function* () {
      const path = yield* socketFor(yield* Driver)
      yield* withoutLeak(
        Effect.gen(function* () {
          const ports = Array.from({ length: 1000 }, (_, index) => 20_000 + index)
          const answers = yield* Effect.forEach(
            ports,
            (port) => ask(path, "/PortMapper.MapPorts", mapBody(port), { agent: new Http.Agent() }),
            { concurrency: "unbounded" }
          )
          assert.deepStrictEqual(
            answers.map(({ body }) => JSON.parse(body).PortBindings[0].FrontendPort),
            ports
          )
        })
      )
      const firewall = yield* MemoryFirewall
      assert.strictEqual(firewall.rules().length, 1000)
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live(
    "serves others while a hundred clients send a byte at a time, and then serves the hundred, too",
    () =>
      Effect.gen(function* () {
        const path = yield* socketFor(echo)
        const text = `POST /PortMapper.MapPorts HTTP/1.1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`
        const released = yield* Deferred.make<void>()
        const slow = Promise.all(
          Array.from(
            { length: 100 },
            () =>
              new Promise<string>((resolve, reject) => {
                const socket = Net.connect(path)
                let answer = ""
                socket.on("data", (chunk) => {
                  answer += chunk
                })
                socket.on("close", () => resolve(answer))
                socket.on("error", reject)
                // The timeout for headers runs on a busy machine, too: all but the end of them is sent at once.
                let sent = text.length - 16
                socket.write(text.slice(0, sent))
                const timer = setInterval(() => {
                  socket.write(text.slice(sent, ++sent))
                  if (sent < text.length - 1) return
                  clearInterval(timer)
                  // Each client sends its last byte once the others have been served.
                  Effect.runFork(
                    Effect.andThen(
                      Deferred.await(released),
                      Effect.sync(() => socket.write(text.slice(sent)))
                    )
                  )
                }, 5)
              })
          )
        )
        for (let port = 1; port <= 50; port++) {
          assert.strictEqual((yield* ask(path, "/PortMapper.MapPorts", mapBody(port))).status, 200)
        }
        yield* Deferred.succeed(released, undefined)
        for (const answer of yield* Effect.promise(() => slow)) assert.match(answer, /^HTTP\/1\.1 200 /)
      })
  )

  it.live("either answers or rolls back the call of a client that disconnects midway", () =>
    Effect.gen(function* () {
      const path = yield* socketFor(yield* Driver)
      const firewall = yield* MemoryFirewall
      yield* withoutLeak(
        Effect.gen(function* () {
          const answered = yield* Effect.forEach(
            Array.from({ length: 300 }, (_, index) => index),
            (index) =>
              Effect.promise(
                () =>
                  new Promise<number | undefined>((resolve) => {
                    const port = 30_000 + index
                    const body = mapBody(port)
                    const text = `POST /PortMapper.MapPorts HTTP/1.1\r\nContent-Length: ${body.length}\r\n\r\n${body}`
                    const socket = Net.connect(path)
                    let seen = false
                    socket.on("error", () => {})
                    socket.on("data", () => {
                      seen = true
                    })
                    socket.on("close", () => resolve(seen ? port : undefined))
                    // Some disconnect in the headers, some in the body, the others during the call.
                    if (index % 3 === 0) socket.write(text.slice(0, (index * 7) % text.length))
                    else socket.write(text)
                    setTimeout(() => socket.destroy(), index % 7)
                  })
              ),
            { concurrency: 50 }
          )
          const { listPorts } = yield* Driver
          const listed = yield* until(
            listPorts ?? Effect.succeed([]),
            (all) => all.length === firewall.rules().length
          )
          const live = new Set(listed.map(({ frontendPort }) => frontendPort))
          for (const port of answered) if (port !== undefined) assert.isTrue(live.has(port), `${port}`)
          assert.strictEqual(firewall.rules().length, live.size)
        })
      )
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live(
    `refuses ${malformedCount} malformed requests, keeps no memory of them, and goes on`,
    () =>
      Effect.gen(function* () {
        const path = yield* socketFor(echo)
        yield* withoutLeak(refuseAll((body, index) => send(path, body, index)))
        assert.match(
          yield* Effect.promise(() => raw(path, "\x00\xff nothing like HTTP\r\n\r\n")),
          /^HTTP\/1\.1 400 /
        )
        assert.strictEqual((yield* ask(path, "/Plugin.Activate")).status, 200)
      }),
    malformedTimeoutMillis
  )
})

const agent = new Http.Agent({ keepAlive: true, maxSockets: 50 })

const send = (path: string, body: Buffer, index: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const sent = Http.request(
      {
        socketPath: path,
        method: index % 11 === 0 ? "PUT" : "POST",
        path: index % 10 === 0 ? "/Nope" : "/PortMapper.MapPorts",
        agent
      },
      (response) => {
        response.resume().on("end", () => resolve(response.statusCode ?? 0))
      }
    )
    sent.on("error", reject)
    sent.end(body)
  })

/** Fifty at a time; every answer blames the client. The second half leaves no more memory in use than the first. */
const refuseAll = (send: (body: Buffer, index: number) => Promise<number>): Effect.Effect<void> =>
  Effect.gen(function* () {
    const bodies = malformed()
    const half = Effect.forEach(
      Array.from({ length: malformedCount / 2 }, (_, index) => index),
      (index) =>
        Effect.promise(async () => {
          const status = await send(bodies(index), index)
          assert.isTrue(status >= 400 && status < 500, `${status} ${bodies(index)}`)
        }),
      { concurrency: 50, discard: true }
    )
    yield* half
    const before = collectGarbage()
    yield* half
    assert.isBelow(collectGarbage() - before, 8 * 1024 * 1024)
    agent.destroy()
  })
