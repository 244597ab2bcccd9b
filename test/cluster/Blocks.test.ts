import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { group } from "../support/groups.ts"
import { claimed, type Host, makeHost, testHosts as test, two, web, writesOf } from "./MemoryHosts.ts"

describe("ephemeral ports", () => {
  test(
    "of all hosts never meet, and most of them cost no write",
    Effect.gen(function* () {
      const hosts = [yield* makeHost("a"), yield* makeHost("b"), yield* makeHost("c")]
      const given = new Map<number, string>()
      let writes = 0
      for (let index = 0; index < 1000; index++)
        for (const host of hosts) {
          const backend = `172.17.${index >> 8}.${index & 255}:80`
          writes += yield* writesOf(
            host,
            Effect.map(
              host.map(group("0", [`tcp 0.0.0.0 ${backend}`, `udp 0.0.0.0 ${backend}`])),
              ([binding]) => {
                const port = binding?.port ?? 0
                assert.isFalse(given.has(port), `${port} is of ${given.get(port)} and ${host.name}`)
                given.set(port, host.name)
              }
            )
          )
        }
      // A block of 64 ports is one write; how soon blocks grow to that depends on the machine.
      assert.isBelow(writes, 300)
      const blocks = (yield* claimed).map((each) => each.split(" ")[1])
      assert.deepStrictEqual([...new Set(blocks)], ["block"])
    })
  )

  test(
    "go back to the cluster once a host needs far fewer",
    Effect.gen(function* () {
      const [a] = yield* two
      const mapped = []
      for (let index = 1; index < 200; index++)
        mapped.push(yield* a.map(group("0", [`tcp 0.0.0.0 172.17.0.${index}:80`])))
      const before = (yield* claimed).length
      for (const bindings of mapped) yield* a.unmap(bindings)
      assert.isBelow((yield* claimed).length, before)
      assert.isBelow((yield* a.cluster().status).freeOfBlocks, 128)
    })
  )

  test(
    "are all allocated once no host gives back any",
    Effect.gen(function* () {
      const ephemeral = { first: 40000, last: 40007 }
      const [a, b] = [yield* makeHost("a", { ephemeral }), yield* makeHost("b", { ephemeral })]
      const one = (host: Host, index: number) => host.map(group("0", [`tcp 0.0.0.0 172.17.0.${index}:80`]))
      for (const index of [1, 2, 3, 4]) yield* one(a, index)
      for (const index of [1, 2, 3, 4]) yield* one(b, index)
      assert.strictEqual(
        yield* b.refused(group("0", [web])),
        "bind for 0.0.0.0:40000-40007/tcp failed: all ports are allocated in 40000-40007"
      )
    })
  )
})
