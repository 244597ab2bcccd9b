import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { maxBodyBytes } from "../../adapters/docker/PluginServer.ts"
import { CurrentOwner } from "../../src/protocol/Driver.ts"
import { echo } from "../support/drivers.ts"
import { raw, request } from "../support/http.ts"
import { socketFor } from "../support/socket.ts"
import http from "../vectors/http.json" with { type: "json" }

const ask = (...args: Parameters<typeof request>) => Effect.promise(() => request(...args))

describe("the plugin's HTTP", () => {
  it.live("answers as the reference does; refuses with JSON, and GET does not activate", () =>
    Effect.gen(function* () {
      const path = yield* socketFor(echo)
      for (const recorded of http) {
        const [method, url] = recorded.request.split(" ") as [string, string]
        const answer = yield* ask(path, url, recorded.body, { method })
        assert.strictEqual(answer.contentType, "application/vnd.docker.plugins.v1.1+json")
        if (method === "GET") assert.strictEqual(answer.status, 405)
        else assert.strictEqual(answer.status, recorded.status, recorded.request + recorded.body)
        if (answer.status === 200)
          assert.strictEqual(answer.body.replace(/\s/g, ""), recorded.response.replace(/\s/g, ""))
        else assert.deepStrictEqual(Object.keys(JSON.parse(answer.body)), ["Err"])
        assert.isTrue(answer.body.endsWith("\n"))
      }
    })
  )

  it.live(
    "accepts the Engine's exact bytes: an empty Host header, no Content-Type, an empty Activate body",
    () =>
      Effect.gen(function* () {
        const path = yield* socketFor(echo)
        for (const host of ["Host: plugin.moby.localhost\r\n", "Host: \r\n", "Host:\r\n", ""]) {
          const answer = yield* Effect.promise(() =>
            raw(
              path,
              `POST /Plugin.Activate HTTP/1.1\r\n${host}User-Agent: Go-http-client/1.1\r\nContent-Length: 0\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\nConnection: close\r\n\r\n`
            )
          )
          assert.match(answer, /^HTTP\/1\.1 200 OK\r\n/, host)
          assert.match(answer, /\r\n\r\n\{"Implements":\["PortMapper"\]\}\n$/)
        }
      })
  )

  it.live("refuses a body over the limit, announced or not", () =>
    Effect.gen(function* () {
      const path = yield* socketFor(echo)
      const big = "x".repeat(maxBodyBytes + 1)
      const chunked = yield* Effect.promise(() =>
        raw(
          path,
          `POST /PortMapper.MapPorts HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${big.length.toString(16)}\r\n${big}\r\n0\r\n\r\n`
        )
      )
      const announced = yield* Effect.promise(() =>
        raw(path, `POST /PortMapper.MapPorts HTTP/1.1\r\nContent-Length: ${big.length}\r\n\r\n`)
      )
      for (const answer of [chunked, announced]) {
        assert.match(answer, /^HTTP\/1\.1 413 /)
        assert.match(answer, /\{"Err":"the body is over the limit of 1048576 bytes"\}\n$/)
      }
    })
  )

  it.live("answers 400 to what is not HTTP, and goes on", () =>
    Effect.gen(function* () {
      const path = yield* socketFor(echo)
      assert.match(
        yield* Effect.promise(() => raw(path, "\x16\x03\x01 hello\r\n\r\n")),
        /^HTTP\/1\.1 400 .*"Err":"this is no HTTP request"\}\n$/s
      )
      assert.strictEqual((yield* ask(path, "/Plugin.Activate")).status, 200)
    })
  )

  it.live("reads the owner of a call from its header", () =>
    Effect.gen(function* () {
      const owners: Array<string> = []
      const path = yield* socketFor({
        ...echo,
        unmapPorts: () => Effect.map(CurrentOwner, (owner) => void owners.push(owner))
      })
      yield* ask(path, "/PortMapper.UnmapPorts", "{}")
      yield* ask(path, "/PortMapper.UnmapPorts", "{}", { headers: { "Portmapper-Owner": "cli" } })
      assert.deepStrictEqual(owners, ["engine", "cli"])
    })
  )
})
