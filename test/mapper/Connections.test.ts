import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { MemoryRelay, type RouteFrontend } from "../../src/relay/Relay.ts"
import { map, testMapper as test } from "../support/calls.ts"
import { group } from "../support/groups.ts"

const proxied = { "portmapper.mode": "proxy" }
const at = (port: number, backend: string, labels: Record<string, string> = proxied) =>
  group(`${port}`, [`tcp 0.0.0.0 ${backend}`], labels)

const connectionsOf = (...asked: ReadonlyArray<Group>) =>
  Driver.use(({ connectionsOf = () => Effect.die("no connectionsOf") }) =>
    connectionsOf(
      asked.flatMap(({ entries, ports }) =>
        entries.map((entry) => ({ ...entry, port: ports._tag === "Exact" ? ports.port : 0 }))
      )
    )
  )

const connect = (port: number, more: Partial<RouteFrontend> = {}) =>
  MemoryRelay.useSync(({ connect: open }) =>
    open({ protocol: "tcp", host: addressUnsafe("0.0.0.0"), port, ...more }, addressUnsafe("10.0.0.1"))
  )

describe("the connections of mappings", () => {
  test("are those of the mappings that are named, and those that lead to their backends by any other way", () =>
    Effect.gen(function* () {
      const [web, db] = [at(8080, "172.17.0.2:80"), at(8081, "172.17.0.3:80")]
      yield* map(web)
      yield* map(db)
      for (const port of [8080, 8080, 8081]) yield* connect(port)
      const { keepOpen } = yield* MemoryConntrack
      keepOpen("172.17.0.2:80/tcp", 4)
      keepOpen("172.17.0.2:80/udp", 8)
      assert.deepStrictEqual(yield* connectionsOf(web), { begun: 2, open: 6 })
      assert.deepStrictEqual(yield* connectionsOf(db), { begun: 1, open: 1 })
      assert.deepStrictEqual(yield* connectionsOf(web, db), { begun: 3, open: 7 })
    }))

  test("of a frontend that leads nowhere yet are those of its backend", () =>
    Effect.gen(function* () {
      const { keepOpen } = yield* MemoryConntrack
      keepOpen("172.17.0.2:80/tcp", 1)
      assert.deepStrictEqual(yield* connectionsOf(at(8080, "172.17.0.2:80")), { begun: 0, open: 1 })
      assert.deepStrictEqual(yield* connectionsOf(), { begun: 0, open: 0 })
    }))

  test("of a service's backend are its own alone", () =>
    Effect.gen(function* () {
      const share = { ...proxied, "portmapper.share": "web" }
      const [first, second] = [at(8080, "172.17.0.2:80", share), at(8080, "172.17.0.3:80", share)]
      yield* map(first)
      yield* connect(8080)
      yield* map(second)
      const counts = [yield* connectionsOf(first), yield* connectionsOf(second)]
      assert.deepStrictEqual(
        counts.map(({ begun }) => begun),
        [1, 0]
      )
    }))
})
