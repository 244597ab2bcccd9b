import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { announce, takeNotify, takePassedSockets } from "../../adapters/docker/Systemd.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"
import { activated, startReceiver } from "../support/process.ts"

describe("takePassedSockets", () => {
  const take = (environment: Record<string, string | undefined>) =>
    Effect.map(takePassedSockets(environment, 42), (sockets) => ({ sockets, environment }))

  it.effect("returns the sockets from descriptor 3 on with their names, and removes the variables", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(
        yield* take({ LISTEN_PID: "42", LISTEN_FDS: "3", LISTEN_FDNAMES: "a:", LISTEN_PIDFDID: "1", A: "b" }),
        {
          sockets: [
            { fd: 3, name: "a" },
            { fd: 4, name: "unknown" },
            { fd: 5, name: "unknown" }
          ],
          environment: { A: "b" }
        }
      )
      assert.deepStrictEqual(yield* take({ LISTEN_PID: "42", LISTEN_FDS: "0" }), {
        sockets: [],
        environment: {}
      })
    })
  )

  it.effect("returns none where they are meant for another process, and reports an invalid number", () =>
    Effect.gen(function* () {
      for (const environment of [{ LISTEN_PID: "41", LISTEN_FDS: "1" }, { LISTEN_FDS: "1" }, {}])
        assert.deepStrictEqual(yield* take(environment), { sockets: [], environment: {} })
      assert.strictEqual(
        (yield* Effect.flip(take({ LISTEN_PID: "42", LISTEN_FDS: "x" }))).message,
        "LISTEN_FDS=x: expected the number of sockets"
      )
    })
  )
})

describe("notifying systemd", () => {
  testNeeding(
    "sends READY once it serves and STOPPING at the end, to a path and to an abstract name",
    ["python"],
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        for (const address of [Path.join(folder, "notify"), `@portmapper-test-${process.pid}`]) {
          const receiver = yield* startReceiver(address)
          yield* receiver.next
          const path = Path.join(folder, `${address.length}.sock`)
          const plugin = yield* activated([path], {}, { NOTIFY_SOCKET: address })
          assert.deepStrictEqual(yield* receiver.next, { datagram: "READY=1\nSTATUS=listening on 1 sockets" })
          assert.deepStrictEqual((yield* plugin.next)["environment"], [])
          assert.strictEqual((yield* Effect.promise(() => request(path, "/Plugin.Activate"))).status, 200)
          yield* plugin.end("SIGTERM")
          assert.deepStrictEqual(yield* receiver.next, {
            datagram: "STOPPING=1\nSTATUS=finishing the requests in flight"
          })
        }
      })
  )

  it.effect("sends nothing without NOTIFY_SOCKET, and logs what it can't send", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      const sent: Array<readonly [string, string]> = []
      const collect = Logger.layer([Logger.make(({ message }) => void lines.push(message))])
      const send = (path: string, bytes: Uint8Array) =>
        path === "/gone"
          ? Effect.fail({ message: "no such file or directory" })
          : Effect.sync(() => void sent.push([path, new TextDecoder().decode(bytes)]))
      const say = (environment: Record<string, string | undefined>) =>
        Effect.scoped(
          Effect.flatMap(takeNotify(send, environment), (notify) => announce(notify, "one\ntwo"))
        ).pipe(Effect.provide(collect), Effect.as(environment))
      yield* say({})
      yield* say({ NOTIFY_SOCKET: "" })
      assert.deepStrictEqual(sent, [])
      assert.deepStrictEqual(yield* say({ NOTIFY_SOCKET: "@name" }), {})
      assert.deepStrictEqual(sent, [
        ["\0name", "READY=1\nSTATUS=one two"],
        ["\0name", "STOPPING=1\nSTATUS=finishing the requests in flight"]
      ])
      yield* Effect.scoped(
        Effect.flatMap(takeNotify(send, { NOTIFY_SOCKET: "/x" }), (notify) =>
          announce(notify, "taken over, and over", { tookOver: true, isLeaving: () => true })
        )
      )
      assert.deepStrictEqual(sent.slice(2), [
        ["/x", `MAINPID=${process.pid}\nREADY=1\nSTATUS=taken over, and over`]
      ])
      assert.deepStrictEqual(lines, [])
      yield* say({ NOTIFY_SOCKET: "/gone" })
      yield* say({ NOTIFY_SOCKET: "vsock:2:1" })
      assert.deepStrictEqual(lines.flat(), [
        "systemd was not notified: no such file or directory",
        "systemd was not notified: no such file or directory",
        "systemd is not notified: NOTIFY_SOCKET=vsock:2:1 is neither a path nor @NAME"
      ])
    })
  )
})
