import { assert, describe } from "@effect/vitest"
import { reservePorts } from "../../support/ports.ts"
import { relayTest } from "../world.ts"

const free = await reservePorts()

const udp = "udp" as const

describe("a batch of packets", () => {
  relayTest(
    "keeps a flow for each client, and packets of different sizes apart and in order",
    async (world) => {
      const backend = await world.echoDatagrams()
      await world.open({ protocol: udp, port: free(1), backend: backend.endpoint })
      const sizes = [100, 100, 100, 40, 0, 100, 700, 700, 1, 1, 1, 0, 0, 5]
      const clients = await Promise.all(Array.from({ length: 8 }, () => world.datagrams()))
      const answers = await Promise.all(
        clients.map(
          (client, index) =>
            new Promise<ReadonlyArray<string>>((resolve) => {
              const seen: Array<string> = []
              client.on("message", (bytes) => {
                seen.push(`${bytes.length} of ${bytes[0] ?? "none"}`)
                if (seen.length === sizes.length) resolve(seen)
              })
              for (const size of sizes) client.send(Buffer.alloc(size, index), free(1), "127.0.0.1")
            })
        )
      )
      assert.deepStrictEqual(
        answers,
        clients.map((_, index) => sizes.map((size) => `${size} of ${size === 0 ? "none" : index}`))
      )
      assert.strictEqual(backend.ports.size, 8)
    }
  )
})
