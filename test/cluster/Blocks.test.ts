import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { isLow, takeBlocks } from "../../src/cluster/Blocks.ts"
import type { Member } from "../../src/cluster/Member.ts"
import { group } from "../support/groups.ts"
import { claimed, type Host, makeHost, testHosts as test, two, web, writesOf } from "./MemoryHosts.ts"
import { look, memberOf } from "./twoStores.ts"

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

describe("a host that takes blocks", () => {
  const first = 40000
  /** Takes one more where it may; returns whether it did, and all that it has, from the first port of the range on. */
  const takeOne = Effect.fnUntraced(function* (
    { member, session }: Effect.Success<ReturnType<typeof memberOf>>,
    last = first + 127
  ) {
    yield* look(member)
    const { ledger } = member
    const before = ledger.blocks().length
    const hunting = { range: { first, last }, from: 0 }
    const isTaken = yield* takeBlocks(member, session, hunting, () => ledger.blocks().length > before)
    return [isTaken, ...ledger.blocks().map((block) => `${block.first - first}-${block.last - first}`)]
  })
  const use = ({ ledger }: Member, from: number, to: number) => {
    for (let port = from; port <= to; port++)
      ledger.reserve({ protocol: "tcp", port: first + port, claimant: undefined })
  }

  test(
    "takes one beside its own, else in an empty cell, else anywhere",
    Effect.gen(function* () {
      const [a, b, c] = [yield* memberOf("a"), yield* memberOf("b"), yield* memberOf("c")]
      assert.deepStrictEqual(yield* takeOne(a), [true, "0-3"])
      assert.deepStrictEqual(yield* takeOne(a), [true, "0-3", "4-7"])
      assert.deepStrictEqual(yield* takeOne(b), [true, "64-67"])
      assert.deepStrictEqual(yield* takeOne(c), [true, "8-11"])
    })
  )

  test(
    "takes a smaller one where none of the size that it uses is free, and says where there is none at all",
    Effect.gen(function* () {
      const a = yield* memberOf("a")
      const last = first + 19
      yield* takeOne(a, last)
      use(a.member, 0, 3)
      assert.deepStrictEqual(yield* takeOne(a, last), [true, "0-3", "4-7"])
      use(a.member, 4, 7)
      assert.deepStrictEqual(yield* takeOne(a, last), [true, "0-3", "4-7", "8-15"])
      use(a.member, 8, 15)
      assert.deepStrictEqual(yield* takeOne(a, last), [true, "0-3", "4-7", "8-15", "16-19"])
      assert.deepStrictEqual(yield* takeOne(a, last), [false, "0-3", "4-7", "8-15", "16-19"])
    })
  )

  test(
    "looks elsewhere where the cell that it saw free has been taken meanwhile",
    Effect.gen(function* () {
      const [a, b] = [yield* memberOf("a"), yield* memberOf("b")]
      const hunting = { range: { first: first + 60, last: first + 67 }, from: 0 }
      for (const { member, session } of [a, b])
        assert.isTrue(yield* takeBlocks(member, session, hunting, () => member.ledger.free >= 4))
      assert.deepStrictEqual(
        [a, b].map(({ member }) => member.ledger.blocks().map((block) => block.first - first)),
        [[60], [64]]
      )
    })
  )

  test(
    "needs another one while it has fewer than two free ports, or than a quarter of those in use",
    Effect.gen(function* () {
      const { member, session } = yield* memberOf("a")
      assert.isTrue(isLow(member))
      yield* takeOne({ member, session })
      assert.isFalse(isLow(member))
      use(member, 0, 1)
      assert.isFalse(isLow(member))
      use(member, 2, 2)
      assert.isTrue(isLow(member))
    })
  )
})
