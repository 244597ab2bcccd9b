import { execFile, spawn } from "node:child_process"
import { readdirSync, readlinkSync } from "node:fs"
import { promisify } from "node:util"
import type { Worker } from "node:worker_threads"
import { afterAll, assert, beforeAll, describe } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { libc } from "../../adapters/linux/Libc.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { noLimits } from "../../src/protocol/Limits.ts"
import { reservePorts } from "../support/ports.ts"
import { untilEqual } from "../support/until.ts"
import { ending, endpoint, exchange, nextData, relayTest, sleep } from "./world.ts"

const free = await reservePorts()

/** Threads started by this process. */
const started: Array<Worker> = []
const onWorker = (worker: Worker) => void started.push(worker)

describe("ThreadPool", () => {
  beforeAll(() => void process.on("worker", onWorker))
  afterAll(() => void process.off("worker", onWorker))

  relayTest("starts no thread before the first route, and one for it", async (world) => {
    started.length = 0
    const backend = await world.backend((socket) => socket.pipe(socket))
    assert.strictEqual(started.length, 0)
    await world.open({ protocol: "tcp", port: free(0), backend })
    await world.open({ protocol: "udp", port: free(0), backend })
    assert.strictEqual(started.length, 1)
  })

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

  for (const [neighbour, isBusy] of [
    ["rests", false],
    ["is at work", true]
  ] as const)
    relayTest(`mixes up no routes that come and go while the thread ${neighbour}`, async (world) => {
      const tcp = await Promise.all(names.map((name) => world.backend((socket) => socket.end(name))))
      const udp = await Promise.all(
        names.map(async (name) => {
          const socket = await world.datagrams()
          socket.on("message", (_, from) => socket.send(name, from.port, from.address))
          return endpoint("127.0.0.1", socket.address().port)
        })
      )
      const echo = await world.backend((socket) => socket.pipe(socket))
      const { socket: other } = await world.open({ protocol: "tcp", port: free(10), backend: echo })
      const speaker = world.dial(other.port)
      if (isBusy) speaker.on("data", () => speaker.write("again")).write("begin")
      const client = await world.datagrams()

      // A former listener's number may next be a datagram socket's, or that of a descriptor unknown to the thread.
      for (let round = 0; round < 300; round++) {
        const protocol = round % 3 === 0 ? "udp" : "tcp"
        const port = free(11) + (round % 2)
        const backend = (protocol === "udp" ? udp : tcp)[round % names.length] ?? assert.fail("no backend")
        const route = await world.open({ protocol, port, backend })
        if (round % 4 !== 0) {
          const answer =
            protocol === "udp"
              ? (await exchange(client, "who", port, "127.0.0.1", 5000))?.text
              : (await ending(world.dial(port))).text
          assert.strictEqual(answer, names[round % names.length])
        }
        await world.close(route)
        if (protocol === "tcp") assert.strictEqual((await ending(world.dial(port))).how, "ECONNREFUSED")
        else assert.isUndefined(await exchange(client, "gone", port, "127.0.0.1", 1))
      }
      speaker.destroy()
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

  relayTest(
    "ends a route's remaining connections after the grace time, whatever else happens",
    async (world) => {
      const backend = await world.backend((socket) => socket.pipe(socket))
      const route = await world.open({ protocol: "tcp", port: free(14), backend })
      const client = world.dial(free(14))
      client.write("before")
      await nextData(client)
      const end = ending(client)
      await sleep(100)
      const closed = Date.now()
      await world.close(route)
      assert.strictEqual((await end).how, "ECONNRESET")
      // A thread without a wake-up sleeps for ten seconds.
      assert.isBelow(Date.now() - closed, 5000)
    },
    { grace: Duration.millis(100) }
  )

  relayTest(
    "starts a second thread when the first is busy, and both serve",
    async (world) => {
      started.length = 0
      const echoing = await world.backend((socket) => socket.pipe(socket))
      await world.open({ protocol: "tcp", port: free(2), backend: endpoint("127.0.0.1", free(92)) })
      const route = await world.open({ protocol: "tcp", port: free(3), backend: echoing })
      const load = startLoad()
      try {
        for (let wait = 0; started.length < 2 && wait < 1200; wait++) await sleep(50)
      } finally {
        for (const child of load) child.kill("SIGKILL")
      }
      assert.strictEqual(started.length, 2)
      await sleep(500)
      const answers = await Promise.all(
        Array.from({ length: 200 }, async () => {
          const one = world.dial(free(3))
          one.write("x")
          return nextData(one)
        })
      )
      assert.strictEqual(answers.join(""), "x".repeat(200))
      // All packets of one socket go to one thread, however many routes it has.
      const packets = await world.echoDatagrams()
      const all = { protocol: "udp", host: "0.0.0.0", port: free(4), backend: packets.endpoint } as const
      const { socket } = await world.open(all)
      await world.open({ ...all, host: "127.0.0.1", socket })
      for (let round = 0; round < 20; round++) {
        const packet = await exchange(await world.datagrams(), "x", free(4), "127.0.0.2", 5000)
        assert.strictEqual(packet?.text, "x")
      }
      await world.close(route)
    },
    { maxThreads: 2 }
  )

  relayTest(
    "keeps serving with its threads where another fails to start",
    async (world) => {
      started.length = 0
      const echoing = await world.backend((socket) => socket.pipe(socket))
      await world.open({ protocol: "tcp", port: free(2), backend: endpoint("127.0.0.1", free(92)) })
      const endAtOnce = (worker: Worker) => void worker.terminate()
      process.on("worker", endAtOnce)
      const load = startLoad()
      try {
        for (let wait = 0; world.logged.length === 0 && wait < 400; wait++) await sleep(50)
      } finally {
        process.off("worker", endAtOnce)
        for (const child of load) child.kill("SIGKILL")
      }
      assert.deepStrictEqual(world.logged, [
        "a relay thread could not be added (it ended by itself); the running threads serve all routes"
      ])
      for (const protocol of ["tcp", "udp"] as const) {
        const backend = protocol === "tcp" ? echoing : (await world.echoDatagrams()).endpoint
        await world.open({ protocol, port: free(3), backend })
      }
      const client = world.dial(free(3))
      client.write("served")
      assert.strictEqual(await nextData(client), "served")
      const packet = await exchange(await world.datagrams(), "served", free(3), "127.0.0.1", 5000)
      assert.strictEqual(packet?.text, "served")
      assert.strictEqual(started.length, 2)
    },
    { maxThreads: 2 }
  )

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

const names = ["one", "two", "three", "four", "five"]

/** Open sockets and pipes of this process. */
const openDescriptors = (): number =>
  readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return /^(socket|pipe):/.test(readlinkSync(`/proc/self/fd/${fd}`))
    } catch {
      return false
    }
  }).length

const sink = `
  import { createServer } from "node:net"
  createServer((socket) => socket.on("error", () => {}).resume()).listen(${free(92)}, "127.0.0.1")`

const source = `
  import { connect } from "node:net"
  const chunk = Buffer.alloc(1 << 20)
  const begin = () => {
    const socket = connect(${free(2)}, "127.0.0.1")
    const push = () => { while (socket.write(chunk)); }
    socket.on("connect", push).on("drain", push).on("error", () => {}).on("close", () => setTimeout(begin, 50))
  }
  for (let stream = 0; stream < 4; stream++) begin()`

/** More load than one processor handles for a relay's thread, whatever else this machine does. */
const startLoad = () =>
  [sink, source, source, source].map((script) =>
    spawn(process.execPath, ["--input-type=module", "--eval", script], { stdio: "ignore" })
  )

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
