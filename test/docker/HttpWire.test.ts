import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { httpWire } from "../../adapters/docker/HttpWire.ts"
import { socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { temporaryFolder } from "../support/folders.ts"

const post = {
  method: "POST",
  path: "/X",
  headers: [["Host", ""]] as ReadonlyArray<readonly [string, string]>,
  body: "é"
}

describe("a raw request to a plugin", () => {
  it.live("goes out as written; any answer counts, and where none comes the reason is named", () =>
    Effect.gen(function* () {
      const path = `${yield* temporaryFolder}/p.sock`
      const { send } = httpWire(socketAddress(path))
      const none = Effect.map(Effect.flip(send(post)), ({ detail }) => detail)
      assert.strictEqual(yield* none, "no such socket")
      let answer = "HTTP/1.1 599 What\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nno"
      let request = ""
      const server = Net.createServer((socket) => {
        socket
          .on("error", () => {})
          .on("data", (bytes) => {
            request = bytes.toString()
            if (answer === "") socket.destroy()
            else socket.end(answer)
          })
      })
      yield* Effect.callback<void>((resume) => void server.listen(path, () => resume(Effect.void)))
      yield* Effect.addFinalizer(() => Effect.sync(() => server.close()))
      const got = yield* send(post)
      assert.deepStrictEqual([got.status, got.body, got.headers["x-a"]], [599, "no", "1"])
      assert.strictEqual(
        request,
        "POST /X HTTP/1.1\r\nHost: \r\nContent-Length: 2\r\nConnection: close\r\n\r\né"
      )
      for (const [next, why] of [
        ["SSH-2.0-x\r\n", /^the answer is not HTTP \(.+\)$/],
        [`HTTP/1.1 200 OK\r\n\r\n${"x".repeat(16 * 1024 * 1024 + 1)}`, /^the answer is too long$/],
        ["", /^the connection broke$/]
      ] as const) {
        answer = next
        assert.match(yield* none, why)
      }
    })
  )
})
