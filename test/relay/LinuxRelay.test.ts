import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { Relay } from "../../src/relay/Relay.ts"
import { reservePorts } from "../support/ports.ts"
import { ending, endpoint, nextData, relayTest } from "./world.ts"

const free = await reservePorts()

const tcp = "tcp" as const

describe("LinuxRelay", () => {
  relayTest(
    "sends new connections by a route that replaced another, and lets the old ones go on",
    async (world) => {
      const first = await world.backend((socket) =>
        socket.on("data", (bytes) => socket.write(`first ${bytes}`))
      )
      const second = await world.backend((socket) =>
        socket.on("data", (bytes) => socket.write(`second ${bytes}`))
      )
      const route = await world.open({ protocol: tcp, port: free(14), backend: first })
      const old = world.dial(free(14))
      old.write("a")
      assert.strictEqual(await nextData(old), "first a")
      await world.reopen({ ...route, backend: second })
      const young = world.dial(free(14))
      young.write("b")
      assert.strictEqual(await nextData(young), "second b")
      old.write("c")
      assert.strictEqual(await nextData(old), "first c")
      assert.strictEqual((await world.count(route)).connections, 2)
    }
  )

  relayTest("serves on as before where a replacement fails", async (world) => {
    const backend = await world.backend((socket) => socket.end("here"))
    const route = await world.open({ protocol: tcp, port: free(15), backend })
    const error = await world.run(
      Effect.flatMap(Relay, (relay) =>
        Effect.flip(relay.open({ ...route, backend: endpoint("fe80::1%nowhere", 80) }))
      )
    )
    assert.strictEqual(
      error.message,
      `relay for 127.0.0.1:${free(15)}/tcp failed: there is no interface nowhere`
    )
    assert.strictEqual((await ending(world.dial(free(15)))).text, "here")
  })
})
