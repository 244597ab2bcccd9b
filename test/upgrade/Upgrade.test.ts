import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Fiber } from "effect"
import { socketsAndRelay } from "../../adapters/host/Mapper.ts"
import {
  type ProcessState,
  runGenerations,
  startProcess,
  stateLocking
} from "../../adapters/upgrade/Upgrade.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { reservePorts } from "../support/ports.ts"
import { until } from "../support/until.ts"
import { connectedTo, handoverPath, hello, listeningAt } from "./peer.ts"

const free = await reservePorts()

const started = (path: string, takeover: boolean) =>
  startProcess({
    ...{ path, takeover, grace: Duration.seconds(1) },
    host: (paused) => socketsAndRelay({ udpIdle: undefined, paused })
  })

/** Runs the generations; `events` are their begins, their service and their ends. */
const running = Effect.fnUntraced(function* (state: ProcessState) {
  const events: Array<string> = []
  const event = (what: string) => Effect.sync(() => void events.push(`${what} ${state.generation}`))
  const generation = Effect.andThen(
    Effect.acquireRelease(event("begins"), () => event("ends")),
    Effect.succeed(event("serves"))
  )
  const fiber = yield* Effect.forkChild(runGenerations(state, generation))
  return { events, fiber, until: (last: string) => until(Effect.sync(() => events.at(-1) === last)) }
})

/** A process that serves and has this port, and the successor that it has just accepted. */
const takenOver = Effect.fnUntraced(function* (port: number) {
  const path = yield* handoverPath
  const state = yield* started(path, false)
  yield* Context.get(state.host, HostSockets).open("tcp", addressUnsafe("127.0.0.1"), port)
  const run = yield* running(state)
  yield* run.until("serves 0")
  const successor = yield* connectedTo(path)
  yield* successor.send(hello)
  assert.strictEqual(yield* successor.hears, '0 {"_tag":"Accepted"}')
  return { ...run, state, successor }
})

describe("a process that serves in generations", () => {
  it.live("stops serving for a successor, and ends once that one serves", () =>
    Effect.gen(function* () {
      const { events, fiber, state, successor } = yield* takenOver(free(0))
      assert.match(yield* successor.hears, /^1 \{"_tag":"Sockets",.*"127\.0\.0\.1"/)
      assert.strictEqual(yield* successor.hears, '0 {"_tag":"Handed"}')
      assert.deepStrictEqual(events, ["begins 0", "serves 0", "ends 0"])
      assert.isTrue(state.handoff.isLeaving())
      yield* successor.send('{"_tag":"Ready"}')
      assert.strictEqual(yield* successor.hears, '0 {"_tag":"Released"}')
      yield* Fiber.join(fiber)
      assert.isTrue(state.isSucceeded)
    })
  )

  it.live("serves again with the same sockets where the successor fails", () =>
    Effect.gen(function* () {
      const { events, fiber, state, successor, until } = yield* takenOver(free(1))
      const { held } = Context.get(state.host, HostSockets)
      yield* successor.kill
      yield* until("serves 1")
      assert.deepStrictEqual(events, ["begins 0", "serves 0", "ends 0", "begins 1", "serves 1"])
      assert.deepStrictEqual(
        (yield* held).map(({ port }) => port),
        [free(1)]
      )
      assert.isDefined(stateLocking(state).lockWait)
      yield* Fiber.interrupt(fiber)
      assert.isFalse(state.isSucceeded)
    })
  )

  it.live("that takes over accepts nothing, and does not serve, before its predecessor has let go", () =>
    Effect.gen(function* () {
      const path = yield* handoverPath
      const predecessor = yield* listeningAt(path)
      const starting = yield* Effect.forkChild(started(path, true))
      for (const said of ['{"_tag":"Accepted"}', '{"_tag":"Handed"}']) yield* predecessor.send(said)
      const state = yield* Fiber.join(starting)
      assert.deepInclude(stateLocking(state), { onLocked: undefined })
      const { events, fiber, until } = yield* running(state)
      assert.strictEqual(yield* predecessor.hears, "connected")
      assert.strictEqual(yield* predecessor.hears, `0 ${hello}`)
      assert.strictEqual(yield* predecessor.hears, '0 {"_tag":"Ready"}')
      assert.deepStrictEqual([events, state.handoff.accepts()], [["begins 0"], false])
      yield* predecessor.send('{"_tag":"Released"}')
      yield* until("serves 0")
      assert.isTrue(state.handoff.accepts())
      yield* Fiber.interrupt(fiber)
    })
  )

  it.live("starts at once where nobody offers a takeover, and waits for no lock", () =>
    Effect.gen(function* () {
      const state = yield* started(yield* handoverPath, true)
      assert.isTrue(state.handoff.accepts())
      const { lockWait, onLocked } = stateLocking(state)
      assert.isUndefined(lockWait)
      yield* onLocked ?? assert.fail("a plain start has to look for a handover")
    })
  )
})
