import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { assert, describe } from "@effect/vitest"
import { reservePorts } from "../../support/ports.ts"
import { untilEqual } from "../../support/until.ts"
import { withFewDescriptors } from "../descriptors.ts"
import { endpoint, relayTest, sleep, type World } from "../world.ts"

const free = await reservePorts()

describe("the relay with few descriptors", () => {
  relayTest("serves everyone in turn", async (world) => {
    await withClients(world, 200, async (clients) => {
      const before = process.cpuUsage()
      clients.write("begin\n")
      assert.deepStrictEqual(JSON.parse(await clients.line()), { served: 30 })
      const { user, system } = process.cpuUsage(before)
      assert.isBelow((user + system) / 1000, 400)
    })
  })

  relayTest("says that they suffice again only once no client waits", async (world) => {
    await withClients(world, "until a line", async (clients) => {
      const said = () => world.logged.map((line) => line.replace(/( \(|:).*/, ""))
      clients.write("begin\n")
      await untilEqual(said, ["descriptors run short"])
      // Longer than the relay remembers that it refused a client.
      await sleep(6000)
      assert.deepStrictEqual(said(), ["descriptors run short"])
      clients.write("end\n")
      assert.deepStrictEqual(JSON.parse(await clients.line()), { served: 30 })
      await untilEqual(said, ["descriptors run short", "descriptors suffice again"])
    })
  })
})

/**
 * Descriptors suffice for two clients at a time, since half of them are reserved. Backend and clients run in another
 * process: the backend must not compete with the relay for descriptors. Each client stays so many milliseconds once
 * it is served, or until a line on stdin.
 */
const withClients = async (
  world: World,
  stay: number | "until a line",
  body: (clients: {
    readonly write: (line: string) => void
    readonly line: () => Promise<string>
  }) => Promise<void>
): Promise<void> => {
  await world.open({ protocol: "tcp", port: free(0), backend: endpoint("127.0.0.1", free(1)) })
  const other = spawn(process.execPath, ["--input-type=module", "--eval", thirtyClients(stay)], {
    stdio: ["pipe", "pipe", "inherit"]
  })
  const lines = createInterface(other.stdout)
  const line = async () => String((await once(lines, "line"))[0])
  try {
    await line()
    await withFewDescriptors(async (leave) => {
      await leave(8)
      await body({ write: (text) => void other.stdin.write(text), line })
    })
  } finally {
    other.kill("SIGKILL")
  }
}

/** On a line it starts 30 clients at once and prints their outcomes. A stay is long enough to expose a busy loop. */
const thirtyClients = (stay: number | "until a line") => `
  import { once } from "node:events"
  import { connect, createServer } from "node:net"
  createServer((socket) => socket.on("error", () => {}).pipe(socket))
    .listen(${free(1)}, "127.0.0.1", () => console.log("listening"))
  const ask = () => new Promise((resolve) => {
    const client = connect(${free(0)}, "127.0.0.1")
    client.on("error", (error) => resolve(error.code)).on("close", () => resolve("closed"))
    client.on("data", async () => {
      resolve("served")
      await stay
      setTimeout(() => client.destroy(), ${stay === "until a line" ? 0 : stay})
    })
    client.write("x")
  })
  await once(process.stdin, "data")
  const stay = ${stay === "until a line" ? 'once(process.stdin, "data")' : "undefined"}
  const counts = {}
  for (const how of await Promise.all(Array.from({ length: 30 }, ask))) counts[how] = (counts[how] ?? 0) + 1
  console.log(JSON.stringify(counts))`
