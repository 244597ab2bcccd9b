import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { claimOf } from "../../src/cluster/Cells.ts"
import { listed } from "../../src/cluster/Listing.ts"
import { Replica } from "../../src/cluster/Replica.ts"
import { Backends } from "../../src/mapper/MapperContext.ts"
import { group } from "../support/groups.ts"
import { makeHost, other, refusedBy, testHosts as test, web } from "./MemoryHosts.ts"

describe("the list of a cluster", () => {
  test(
    "names the container of a port once the Engine has named it, and so does a refusal",
    Effect.gen(function* () {
      const a = yield* makeHost("a", {
        backends: Backends.of({
          stateOf: () => Effect.succeed("running"),
          containers: {
            changed: Effect.sleep("1 second"),
            attribute: (mappings) =>
              Effect.succeed(mappings.map(() => ({ _tag: "BelongsTo" as const, container: "web" }))),
            textOf: (container) => `${container}/0123456789ab`
          }
        })
      })
      const b = yield* makeHost("b")
      yield* a.map(group("8080", [web]))
      yield* a.map(group("0", [other]))
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* b.refused(group("8080", [other])), refusedBy("held by host a, container web"))
      assert.deepStrictEqual(
        (yield* b.listedOfAll).map(({ at, container }) => `${at?.host} ${container}`),
        ["a web/0123456789ab", "a web/0123456789ab"]
      )
    })
  )

  it("has a row for each port in use, with its host, and those of a host that is away are stale", () => {
    const replica = new Replica()
    const use = { protocol: "tcp", owner: "engine", sinceMillis: 5 } as const
    const held = (host: string, ...[item]: [Parameters<typeof claimOf>[1]]) => ({
      ...claimOf(host, item),
      ...{ cell: "0125", host, lease: "1", revision: 1 }
    })
    const uses = [{ ...use, port: 8001, backend: "[fd00::2]:80" }]
    const claims = [
      held("a", { _tag: "Port", ...use, port: 8000, backend: "172.17.0.2:80", service: "engine shop/web" }),
      held("b", { _tag: "Block", first: 8000, last: 8003, uses }),
      held("b", { _tag: "Block", first: 8004, last: 8007 }),
      held("c", { _tag: "Port", ...use, port: 8008, backend: "nowhere" }),
      held("c", { _tag: "Port", ...use, port: 8009, backend: "172.17.0.2:65536" }),
      { ...held("a", { _tag: "Block", first: 8012, last: 8015 }), value: "of a later version" }
    ]
    replica.apply({
      ...{ _tag: "Snapshot", revision: 1, cells: [{ cell: "0125", revision: 1, readAt: 1, claims }] },
      hosts: [
        { host: "a", address: "192.0.2.1", isAbsent: false, revision: 1 },
        { host: "b", address: undefined, isAbsent: true, revision: 1 }
      ]
    })
    assert.deepStrictEqual(
      listed(replica).map(
        ({ frontendIp, frontendPort, backendIp, backendPort, service, at, state }) =>
          `${at?.host} ${frontendIp}:${frontendPort} -> ${backendIp} ${backendPort} ${service} ${state}`
      ),
      [
        "a 192.0.2.1:8000 -> 172.17.0.2 80 shop/web live",
        "b :8001 -> fd00::2 80 undefined stale",
        "c :8008 ->  0 undefined stale",
        "c :8009 -> 172.17.0.2 0 undefined stale"
      ]
    )
  })
})
