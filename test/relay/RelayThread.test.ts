import { execFile } from "node:child_process"
import { readdirSync, readlinkSync } from "node:fs"
import { promisify } from "node:util"
import type { Worker } from "node:worker_threads"
import { afterAll, assert, beforeAll, describe } from "@effect/vitest"
import { Effect } from "effect"
import { libc } from "../../adapters/linux/Libc.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { noLimits } from "../../src/protocol/Limits.ts"
import { reservePorts } from "../support/ports.ts"
import { untilEqual } from "../support/until.ts"
import { ending, exchange, nextData, relayTest, sleep } from "./world.ts"

const free = await reservePorts()

/** Threads started by this process. */
const started: Array<Worker> = []
const onWorker = (worker: Worker) => void started.push(worker)

describe("a thread of the relay", () => {
  beforeAll(() => void process.on("worker", onWorker))
  afterAll(() => void process.off("worker", onWorker))

  relayTest("restarts a thread that died, serves the same sockets and leaves nothing open", async (world) => {
    started.length = 0
    const backend = await world.backend((socket) => socket.pipe(socket))
    const packets = await world.echoDatagrams()
    // What the dead thread had open takes no place any more.
    const limits = { ...noLimits, connections: 1 }
    const route = await world.open({ protocol: "tcp", port: free(1), backend, limits })
    await world.open({ protocol: "udp", port: free(1), backend: packets.endpoint, limits })
    const said = async (text: string) => {
      const client = world.dial(free(1))
      client.write(text)
      return [client, await nextData(client)] as const
    }
    const [lost, answer] = await said("before")
    const speaker = await world.datagrams()
    assert.strictEqual(answer, "before")
    assert.strictEqual((await exchange(speaker, "packet", free(1), "127.0.0.1"))?.text, "packet")
    const before = openDescriptors()

    const reset = ending(lost)
    const death = started[0]?.terminate()
    // This unblocks the thread that must die.
    const waiting = said("meanwhile")
    await death
    assert.strictEqual((await reset).how, "ECONNRESET")
    const [client] = await waiting.catch(() => said("again"))
    assert.strictEqual((await exchange(speaker, "packet", free(1), "127.0.0.1"))?.text, "packet")
    assert.match(
      world.logged.join(),
      /^a relay thread died \(it ended by itself\); its connections are lost, another serves in 100 ms$/
    )
    assert.strictEqual(started.length, 2)
    assert.isAtLeast((await world.count(route)).connections, 2)
    client.destroy()
    // One connection less than before on either side.
    await untilEqual(() => openDescriptors() <= before, true)
    await world.close(route)
  })

  relayTest("lets go of a socket that is another's too", async (world) => {
    const route = await world.open({
      protocol: "tcp",
      port: free(13),
      backend: await world.backend((socket) => socket.pipe(socket))
    })
    const copy = { ...route.socket, fd: libc().duplicate(route.socket.fd) }
    await world.run(Effect.flatMap(HostSockets, (sockets) => sockets.adopt([copy])))
    await sleep(100)
    await world.close(route)
    await world.run(Effect.flatMap(HostSockets, (sockets) => sockets.admit(copy, "everything")))
    const client = world.dial(free(13))
    client.write("in the backlog")
    await sleep(100)
    const before = process.cpuUsage()
    await sleep(1000)
    const { user, system } = process.cpuUsage(before)
    // A thread that gets the event of this connection again and again would spin.
    assert.isBelow(user + system, 500_000)
    assert.strictEqual(client.bytesWritten, "in the backlog".length)
    assert.strictEqual(client.bytesRead, 0)
    await world.run(Effect.flatMap(HostSockets, (sockets) => sockets.close(copy)))
  })

  for (const [how, more] of [
    ["Node's own type stripping", []],
    ["tsx", ["--import", "tsx"]]
  ] as const)
    relayTest(`runs from the sources by ${how}, and lets the process exit at once`, async () => {
      const { stdout } = await promisify(execFile)(process.execPath, [
        ...more,
        "--input-type=module",
        "--eval",
        program
      ])
      const [answer, exit] = stdout.trim().split(" ")
      assert.strictEqual(answer, "hello")
      // A timer or a thread that kept it would do so for longer than this.
      assert.isBelow(Date.now() - Number(exit), 5000)
    })
})

/** Open sockets and pipes of this process. */
const openDescriptors = (): number =>
  readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return /^(socket|pipe):/.test(readlinkSync(`/proc/self/fd/${fd}`))
    } catch {
      return false
    }
  }).length

const program = `
  import { connect, createServer } from "node:net"
  import { Effect, Layer } from "effect"
  import * as LinuxSockets from "./adapters/linux/sockets/LinuxSockets.ts"
  import * as LinuxRelay from "./adapters/relay/LinuxRelay.ts"
  import { HostSockets } from "./src/ports/HostSockets.ts"
  import { addressUnsafe } from "./src/protocol/Address.ts"
  import { Relay } from "./src/relay/Relay.ts"

  const host = addressUnsafe("127.0.0.1")
  createServer((socket) => socket.pipe(socket)).listen(${free(90)}, "127.0.0.1")
  Effect.gen(function* () {
    const socket = yield* (yield* HostSockets).open("tcp", host, ${free(91)})
    const backend = { address: host, port: ${free(90)} }
    yield* (yield* Relay).open({ protocol: "tcp", host, port: ${free(91)}, socket, backend, admits: "everything" })
    const client = connect(${free(91)}, "127.0.0.1")
    client.write("hello")
    const answer = yield* Effect.callback((resume) => client.once("data", (bytes) => resume(Effect.succeed(bytes))))
    console.log(String(answer), Date.now())
    process.exit()
  }).pipe(Effect.provide(LinuxRelay.layer().pipe(Layer.provideMerge(LinuxSockets.layer()))), Effect.runPromise)`
