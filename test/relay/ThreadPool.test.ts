import { spawn } from "node:child_process"
import type { Worker } from "node:worker_threads"
import { afterAll, assert, beforeAll, describe } from "@effect/vitest"
import { reservePorts } from "../support/ports.ts"
import { endpoint, exchange, nextData, relayTest, sleep } from "./world.ts"

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
})

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
