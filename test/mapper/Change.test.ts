import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { Mappings, noResources, type Status } from "../../src/mapper/model/Mapping.ts"
import { changeOf } from "../../src/mapper/plan/Change.ts"
import { group } from "../support/groups.ts"
import { mapping } from "../support/mappings.ts"
import { planned } from "../support/planned.ts"

const unconfirmed: Status = { _tag: "Unconfirmed", pending: 0 }
const answered: Status = { _tag: "Answered", pending: 0 }

/** What a claim by `tcp 0.0.0.0` evicts, or may, on port 8080 where these addresses have it. */
const evicted = (port: string, ...holders: ReadonlyArray<readonly [host: string, status: Status]>) =>
  Effect.gen(function* () {
    const state = yield* Mappings
    for (const [host, status] of holders)
      state.add({
        mapping: mapping(`tcp ${host} 172.17.0.2:80`, 8080),
        status,
        resources: noResources,
        askedMillis: 0
      })
    const claim = planned(group(port, ["tcp 0.0.0.0 172.17.0.3:80"]))
    const asking = { owner: "engine", nowMillis: 0, isGone: () => false }
    const change = changeOf(state, [claim], asking)
    if (Result.isFailure(change)) return change.failure.error.message
    const { evict, reserve } = change.success
    const may = reserve.flatMap(({ evictable }) => evictable((each) => each === 8080))
    const text = (entries: typeof evict) => entries.map((entry) => entry.mapping.host.text)
    return { evict: text(evict), may: may.map(text) }
  }).pipe(Effect.provide(Mappings.layer))

describe("a change", () => {
  it.effect("evicts what is unconfirmed on an exact port, and refuses an answered one", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* evicted("8080", ["10.0.0.1", unconfirmed], ["10.0.0.2", unconfirmed]), {
        evict: ["10.0.0.1", "10.0.0.2"],
        may: [["10.0.0.1", "10.0.0.2"]]
      })
      assert.include(
        yield* evicted("8080", ["10.0.0.1", unconfirmed], ["10.0.0.2", answered]),
        "bind for 0.0.0.0:8080/tcp failed: port is already allocated (held by engine for 172.17.0.2 port 80"
      )
    })
  )

  it.effect("may free a port of a range only if it may evict all that hold it", () =>
    Effect.gen(function* () {
      const range = "8080-8081"
      assert.deepStrictEqual(yield* evicted(range, ["10.0.0.1", unconfirmed], ["10.0.0.2", unconfirmed]), {
        evict: [],
        may: [["10.0.0.1", "10.0.0.2"]]
      })
      assert.deepStrictEqual(yield* evicted(range, ["10.0.0.1", unconfirmed], ["10.0.0.2", answered]), {
        evict: [],
        may: []
      })
    })
  )
})
