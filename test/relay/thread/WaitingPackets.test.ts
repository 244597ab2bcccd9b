import { assert, describe } from "@effect/vitest"
import { Duration } from "effect"
import { reservePorts } from "../../support/ports.ts"
import { untilEqual } from "../../support/until.ts"
import { relayTest, sent, sleep } from "../world.ts"

const free = await reservePorts()
const long = Duration.minutes(5)
const short = Duration.millis(600)

describe("packets to a frontend without a backend", () => {
  relayTest("keeps packets for a backend that comes, and refuses them after their time", async (world) => {
    const backend = await world.echoDatagrams()
    const asked = { protocol: "udp", port: free(7), backend: backend.endpoint, idle: true } as const
    const route = await world.open({ ...asked, waitHealthy: long })
    const client = await world.datagrams()
    const received: Array<string> = []
    client.on("message", (bytes) => received.push(bytes.toString()))
    for (const text of ["a", "b", "", "d"]) client.send(text, free(7), "127.0.0.1")
    await sleep(50)
    await world.reopen({ ...route, idle: undefined })
    await untilEqual(async () => received, ["a", "b", "", "d"])
    await world.reopen({ ...route, waitHealthy: short })
    const { refused } = await sent(world, "e", free(7))
    assert.strictEqual(await refused, "ECONNREFUSED")
  })
})
