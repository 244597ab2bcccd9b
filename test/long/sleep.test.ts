/** Containers of a real Engine that are stopped while nobody uses them, and woken again: minutes, since none sleeps sooner. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { docker, leaveContainer, outside, servedAt, startEngine, startsOf } from "../lab/Containers.ts"
import { describeLab } from "../lab/describeLab.ts"
import { temporaryFolder } from "../support/folders.ts"

const labels = (port: number) => ({
  "portmapper.publish": `${port}:80`,
  "portmapper.wake": "on",
  "portmapper.sleep": "10s"
})

/** A connection that says a word every five seconds. Prints the number of words when it has said all. */
const slowly = `
const [, host, port, words] = process.argv
let said = 0
const socket = require("node:net").connect(port, host)
socket.on("error", (error) => { console.log(error.code); process.exit() })
socket.on("close", () => { console.log("closed after " + said); process.exit() })
const timer = setInterval(() => {
  if (said === Number(words)) { console.log(said); process.exit() }
  socket.write("X-Word: " + said++ + "\\r\\n")
}, 5_000)
socket.write("GET / HTTP/1.0\\r\\n")
`

describeLab("containers that sleep", ["dockerd", "busybox", "iptables"], () => {
  it.live(
    "are stopped after their time, never with a slow client, and woken after a kill in every state",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { client, dockerd, watch } = yield* startEngine()
          const serve = watch({ folder: yield* temporaryFolder })
          const running = Effect.map(docker(dockerd, ["ps", "--format={{.Names}}"]), (text) =>
            text.trim().split("\n").filter(Boolean).sort()
          )
          const soon = <A, E>(look: Effect.Effect<A, E>, isSo: (seen: A) => boolean) =>
            Effect.gen(function* () {
              for (;;) {
                const seen = yield* look
                if (isSo(seen)) return
                yield* Effect.sleep("500 millis")
              }
            }).pipe(Effect.timeout("4 minutes"))
          let plugin = yield* serve
          const killAndServe = Effect.gen(function* () {
            yield* plugin.process.kill("SIGKILL")
            plugin = yield* serve
          })

          yield* leaveContainer(dockerd, "busy", { labels: labels(8080), args: ["--stop-signal=KILL"] })
          yield* leaveContainer(dockerd, "lazy", { labels: labels(8081), args: ["--stop-signal=KILL"] })
          yield* soon(servedAt(client, outside, 8080), (name) => name === "busy")
          const slow = yield* Effect.forkChild(
            client.check(process.execPath, ["-e", slowly, outside, "8080", "24"], { timeoutMillis: 300_000 })
          )
          // Nobody uses the other one, which is not stopped within a minute of its start.
          yield* Effect.sleep("45 seconds")
          assert.deepStrictEqual(yield* running, ["busy", "lazy"])
          yield* soon(running, (names) => names.join() === "busy")
          yield* killAndServe
          assert.deepStrictEqual(yield* running, ["busy"])
          assert.strictEqual((yield* Fiber.join(slow)).trim(), "24")
          yield* soon(running, (names) => names.length === 0)

          assert.strictEqual(yield* servedAt(client, outside, 8081), "lazy")
          yield* killAndServe
          assert.strictEqual(yield* servedAt(client, outside, 8081), "lazy")
          // A kill while it stops: the Engine waits ten seconds for it.
          yield* soon(running, (names) => names.length === 0)

          // A kill while it wakes: the client is reset, and the next one gets its answer from the same start.
          const first = yield* Effect.forkChild(servedAt(client, outside, 8080))
          yield* soon(running, (names) => names.join() === "busy")
          yield* killAndServe
          yield* Fiber.join(first)
          assert.strictEqual(yield* servedAt(client, outside, 8080), "busy")
          const starts = yield* startsOf(dockerd, "busy")
          assert.deepStrictEqual(starts.trim().split("\n"), ["start", "start"])
        })
      )
  )
})
