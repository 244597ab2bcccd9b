/** Two relays in turn on the same sockets, as two processes have them during a takeover. */
import { assert, describe } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { libc } from "../../adapters/linux/Libc.ts"
import { RelayHandover } from "../../adapters/relay/LinuxRelay.ts"
import { type HostSocket, HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Relay, type Route } from "../../src/relay/Relay.ts"
import { reservePorts } from "../support/ports.ts"
import { ending, exchange, linuxRelay, nextData, relayTest, sleep, type World } from "./world.ts"

const free = await reservePorts()

const drain = (grace: Duration.Input) =>
  Effect.flatMap(RelayHandover, (handover) => handover.drain(Duration.fromInputUnsafe(grace)))

/** A second relay, paused, with its own descriptors for the sockets of these routes. */
const successorOf = (...routes: ReadonlyArray<Route>) =>
  Effect.gen(function* () {
    const copies = new Map<HostSocket, HostSocket>()
    const sockets = yield* HostSockets
    for (const { socket } of routes)
      if (!copies.has(socket)) copies.set(socket, { ...socket, fd: libc().duplicate(socket.fd) })
    yield* sockets.adopt([...copies.values()])
    for (const { socket } of routes) yield* sockets.open(socket.protocol, socket.host, socket.port)
    const relay = yield* Relay
    for (const route of routes)
      yield* relay.open({ ...route, socket: copies.get(route.socket) ?? route.socket })
  })

const resume = Effect.flatMap(RelayHandover, (handover) => handover.resume)

const withSuccessor = <A>(use: Effect.Effect<A, unknown, Relay | RelayHandover | HostSockets>): Promise<A> =>
  Effect.runPromise(Effect.orDie(Effect.provide(use, linuxRelay({ paused: true }))))

const echo = (world: World, said: string) =>
  world.backend((socket) => {
    socket.on("data", (bytes) => socket.write(`${said} ${bytes}`))
    socket.on("end", () => socket.end())
  })

describe("LinuxRelay, handed over", () => {
  relayTest(
    "is followed by another without a refused connection, and ends when its own connections have",
    async (world) => {
      const route = await world.open({ protocol: "tcp", port: free(0), backend: await echo(world, "first") })
      const carried = world.dial(free(0))
      carried.write("a")
      assert.strictEqual(await nextData(carried), "first a")
      const second = await echo(world, "second")
      await withSuccessor(
        Effect.gen(function* () {
          yield* successorOf({ ...route, backend: second })
          for (let count = 0; count < 20; count++) {
            const client = world.dial(free(0))
            client.write("b")
            assert.strictEqual(yield* Effect.promise(() => nextData(client)), "first b")
            client.destroy()
          }
          const drained = yield* Effect.promise(() => world.run(drain("1 minute")))
          // The connection waits in the backlog; neither relay accepts it.
          const between = world.dial(free(0))
          between.write("c")
          yield* Effect.sleep("300 millis")
          assert.strictEqual(between.bytesRead, 0)
          yield* resume
          assert.strictEqual(yield* Effect.promise(() => nextData(between)), "second c")
          between.destroy()

          let hasEnded = false
          const end = world.run(drained).then(() => {
            hasEnded = true
          })
          carried.write("d")
          assert.strictEqual(yield* Effect.promise(() => nextData(carried)), "first d")
          assert.isFalse(hasEnded)
          carried.end()
          yield* Effect.promise(() => end)
          assert.deepStrictEqual(yield* Effect.promise(() => world.run(held)), [])
          const [own] = yield* held
          yield* (yield* Relay).close(route)
          yield* (yield* HostSockets).close(own ?? assert.fail("the successor has no socket"))
          yield* Effect.promise(() => world.reserve("tcp", "127.0.0.1", free(0)))
        })
      )
    }
  )

  relayTest("resets what is left when the grace time is over", async (world) => {
    await world.open({ protocol: "tcp", port: free(1), backend: await echo(world, "first") })
    const carried = world.dial(free(1))
    carried.write("a")
    assert.strictEqual(await nextData(carried), "first a")
    const end = ending(carried)
    await world.run(Effect.flatten(drain("300 millis")))
    assert.strictEqual((await end).how, "ECONNRESET")
  })

  relayTest(
    "delivers the answer to a pending datagram, and leaves the next datagram to its successor",
    async (world) => {
      const slow = await world.datagrams()
      let answer = () => {}
      slow.on("message", (bytes, from) => {
        answer = () => slow.send(`slow ${bytes}`, from.port, from.address)
      })
      const backend = { address: addressUnsafe("127.0.0.1"), port: slow.address().port }
      const route = await world.open({ protocol: "udp", port: free(2), backend })
      const quiet = await world.open({ protocol: "udp", port: free(3), backend })
      const quick = await world.echoDatagrams()
      await withSuccessor(
        Effect.gen(function* () {
          yield* successorOf({ ...route, backend: quick.endpoint }, { ...quiet, backend: quick.endpoint })
          const client = yield* Effect.promise(() => world.datagrams())
          const first = exchange(client, "a", free(2), "127.0.0.1", 20_000)
          yield* Effect.promise(async () => {
            while ((await world.count(route)).bytesIn === 0) await sleep(5)
          })
          const drained = yield* Effect.promise(() => world.run(drain("1 minute")))
          // It closes a route without pending answers at once.
          const left = yield* Effect.promise(() => world.run(held))
          assert.deepStrictEqual(
            left.map(({ port }) => port),
            [free(2)]
          )
          answer()
          assert.strictEqual((yield* Effect.promise(() => first))?.text, "slow a")
          const between = exchange(client, "b", free(2), "127.0.0.1", 20_000)
          yield* resume
          assert.strictEqual((yield* Effect.promise(() => between))?.text, "b")
          yield* Effect.promise(() => world.run(drained))
          assert.deepStrictEqual(yield* Effect.promise(() => world.run(held)), [])
        })
      )
    },
    { answerTimeout: Duration.seconds(5) }
  )
})

const held = Effect.flatMap(HostSockets, (sockets) => sockets.held)
