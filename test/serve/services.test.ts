/** How the kernel spreads the connections of a service, seen at its backends: a SYN for each of thousands of clients. */
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { slotOfSource } from "../../src/relay/SourceHash.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"

const outside = "10.99.0.1"
const backends = ["172.31.0.2", "172.31.0.3", "172.31.0.4", "172.31.0.5"] as const
type Backend = (typeof backends)[number]

const network = {
  ipv4: "172.31.0.1/24",
  containers: Object.fromEntries(backends.map((ipv4, index) => [`c${index + 1}`, { ipv4 }]))
}

/** Counts connections and remembers their clients, and answers none. */
const noticing = `table inet seen {
  set clients { type ipv4_addr; flags dynamic; size 65535; }
  counter connections {}
  chain input {
    type filter hook input priority 0
    tcp dport 80 tcp flags syn counter name connections add @clients { ip saddr } drop
  }
}`

const program = fileURLToPath(new URL("../support/syns.py", import.meta.url))

const makeService = Effect.fnUntraced(function* (balance: "random" | "source") {
  const lab = yield* Lab.make({ network })
  const places = backends.map((_, index) => lab.get(`c${index + 1}`))
  for (const place of places) yield* place.check("nft", ["-f", "-"], { input: noticing })
  const plugin = yield* Plugin.start(lab.host)
  const labels = { "portmapper.share": "web", "portmapper.balance": balance }
  const join = (backend: Backend) => plugin.map([`tcp 0.0.0.0:8080 ${backend}:80`], labels)
  yield* Effect.forEach(backends.slice(0, 3), join)
  const ofEach = <A, E>(look: (place: Namespace) => Effect.Effect<A, E>) => Effect.forEach(places, look)
  return {
    join,
    leave: plugin.unmap,
    /** The backend of each slot. */
    slots: Effect.map(contents(lab.host), (all) => {
      const slots: Array<string> = []
      for (const element of Object.values(all).flat()) {
        const [, slot, backend] = /^tcp \. 8080 \. (\d+) : (\S+) \. 80$/.exec(element) ?? []
        if (backend !== undefined) slots[Number(slot)] = backend
      }
      return slots
    }),
    /** From so many addresses, with so many source ports each. */
    connect: (sources: number, firstPort: number, ports: number) =>
      lab.client.check("python3", [
        ...[program, outside, "8080", firstSource],
        ...[sources, firstPort, ports].map(String)
      ]),
    connections: ofEach((place) =>
      Effect.map(place.check("nft", ["list", "counter", "inet", "seen", "connections"]), (text) =>
        Number(/packets (\d+)/.exec(text)?.[1])
      )
    ),
    /** The backend of each client since the last look. */
    clients: Effect.map(
      ofEach((place) =>
        Effect.tap(
          Effect.map(contents(place, "inet seen"), ({ clients = [] }) => clients),
          () => place.check("nft", ["flush", "set", "inet", "seen", "clients"])
        )
      ),
      (all) =>
        new Map(all.flatMap((clients, index) => clients.map((client) => [client, backends[index]] as const)))
    )
  }
})

const firstSource = "10.50.0.1"

describeLab("a service", ["python"], () => {
  it.live("spreads new connections within 5 % of even", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { connect, connections } = yield* makeService("random")
        let counts = yield* connections
        const total = () => counts.reduce((sum, count) => sum + count, 0)
        // So many that only an uneven spread makes the difference. A queue that overflows loses some.
        for (let port = 1024; total() < 100_000; port += 1000) {
          yield* connect(20, port, 1000)
          counts = yield* connections
        }
        const [first = 0, second = 0, third = 0, fourth] = counts
        assert.strictEqual(fourth, 0)
        for (const count of [first, second, third])
          assert.approximately(count, total() / 3, (total() / 3) * 0.05, `${counts}`)
      })
    )
  )

  it.live("keeps the backend of each source, and moves those whose slot is taken or left", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { connect, clients, slots, join, leave } = yield* makeService("source")
        let port = 1024
        /** Of a thousand clients; each connects three times. */
        const look = Effect.gen(function* () {
          yield* connect(1000, port, 3)
          port += 3
          const seen = yield* clients
          assert.strictEqual(seen.size, 1000)
          const table = yield* slots
          assert.lengthOf(table, 64)
          for (const [client, backend] of seen) {
            const { octets } = addressUnsafe(client)
            assert.strictEqual(backend, table[slotOfSource(octets, 0, 4, 64)], client)
          }
          return { seen, table }
        })
        const before = yield* look
        assert.deepStrictEqual((yield* look).seen, before.seen)

        // A newcomer takes the slots that it gets, and one that leaves gives away those that it had.
        const [, , , one] = backends
        const { bindings } = yield* join(one)
        const joined = yield* look
        assert.lengthOf(
          joined.table.filter((backend) => backend === one),
          16
        )
        for (const [slot, backend] of joined.table.entries())
          assert.include([before.table[slot], one], backend)
        yield* leave(bindings)
        const without = yield* look
        for (const [slot, backend] of joined.table.entries())
          if (backend === one) assert.notStrictEqual(without.table[slot], one)
          else assert.strictEqual(without.table[slot], backend)
      })
    )
  )
})
