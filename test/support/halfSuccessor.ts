/**
 * Runs in its own process: takes over up to the given step, then ends without a message, as by SIGKILL; or freezes.
 */
import { Effect } from "effect"
import { connectForDescriptors } from "../../adapters/linux/sockets/DescriptorSocket.ts"
import { receive, send } from "../../adapters/upgrade/Channel.ts"
import { handoverVersion } from "../../adapters/upgrade/Messages.ts"

export type Halfway = "connected" | "said hello" | "was accepted" | "got a part" | "got everything"

const [path = "", upTo, then] = process.argv.slice(2)

const dieAt = (here: Halfway) =>
  here !== upTo
    ? Effect.void
    : Effect.andThen(
        Effect.sync(() => process.kill(process.pid, then === "freeze" ? "SIGSTOP" : "SIGKILL")),
        Effect.never
      )

const half = Effect.gen(function* () {
  const socket = yield* connectForDescriptors(path)
  yield* dieAt("connected")
  yield* send(socket, { _tag: "Hello", version: handoverVersion })
  yield* dieAt("said hello")
  yield* receive(socket, "30 seconds", "Accepted")
  yield* dieAt("was accepted")
  while (true) {
    const received = yield* receive(
      socket,
      "30 seconds",
      "Sockets",
      "Listeners",
      "Connections",
      "Lock",
      "Handed"
    )
    yield* dieAt("got a part")
    if (received?.message._tag === "Handed") break
  }
  yield* dieAt("got everything")
})

const awake = setInterval(() => {}, 1000)
await Effect.runPromise(Effect.scoped(half))
clearInterval(awake)
