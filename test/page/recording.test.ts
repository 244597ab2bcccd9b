import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit } from "effect"
import { recordMappings, recordRefusals } from "../../adapters/page/recording.ts"
import { type Mapping, Mappings, noResources, type Status } from "../../src/mapper/model/Mapping.ts"
import { Journal } from "../../src/page/Journal.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { group } from "../support/groups.ts"
import { mapping } from "../support/mappings.ts"

const entry = (
  port: number,
  more: Partial<Mapping> = {},
  status: Status = { _tag: "Answered", pending: 0 }
) => ({
  ...{
    mapping: mapping("tcp 0.0.0.0 172.17.0.2:80", port, more),
    status,
    resources: noResources,
    askedMillis: 0
  }
})
const conflicted = { _tag: "Conflicted", was: "Answered" } as const

/** A table of mappings whose changes are noted, and what was noted since the last call. */
const recorded = Effect.gen(function* () {
  const journal = new Journal(() => 0)
  const recording = recordMappings(journal)
  const services = recording.decorate(yield* Effect.context<Mappings>())
  let seen = 0
  const take = () => {
    const events = journal.after(seen)
    seen = journal.latest
    return events.map(({ kind, text, key, owner }) => [kind, text, key, owner])
  }
  return { recording, mappings: Context.get(services, Mappings), take }
})

describe("the journal of a mapper", () => {
  it.effect("notes what was restored as one event, and each conflict among it", () =>
    Effect.gen(function* () {
      const { mappings, recording, take } = yield* recorded
      mappings.add(entry(8080))
      mappings.add({ ...entry(8081, {}, conflicted), reason: "address already in use" })
      assert.deepStrictEqual(take(), [])
      recording.begin("restored", "restored")
      assert.deepStrictEqual(take(), [
        ["restored", "restored 2 mappings, 1 of them in conflict", null, null],
        ["conflicted", "0.0.0.0:8081/tcp: address already in use", "tcp 0.0.0.0:8081 172.17.0.2:80", "engine"]
      ])
    }).pipe(Effect.provide(Mappings.layer))
  )

  it.effect("notes a start with nothing only where another process was taken over from", () =>
    Effect.gen(function* () {
      const { recording, take } = yield* recorded
      recording.begin("restored", "restored")
      assert.deepStrictEqual(take(), [])
      recording.begin("took over from process 7:", "tookOver")
      assert.deepStrictEqual(take(), [["tookOver", "took over from process 7: 0 mappings", null, null]])
    }).pipe(Effect.provide(Mappings.layer))
  )

  it.effect("notes each mapping that comes and goes from then on, as the list names it", () =>
    Effect.gen(function* () {
      const { mappings, recording, take } = yield* recorded
      recording.begin("restored", "restored")
      const one = entry(8080, { requestedAddress: "", owner: "cli" })
      const routed = entry(0, { mode: "routed" })
      for (const each of [one, routed]) mappings.add(each)
      mappings.delete(one)
      assert.deepStrictEqual(take(), [
        ["mapped", "0.0.0.0:8080/tcp to 172.17.0.2:80", "tcp 0.0.0.0:8080 172.17.0.2:80", "cli"],
        ["mapped", "172.17.0.2:80/tcp, routed", "tcp 0.0.0.0:0 172.17.0.2:80", "engine"],
        ["unmapped", "0.0.0.0:8080/tcp to 172.17.0.2:80", "tcp 0.0.0.0:8080 172.17.0.2:80", "cli"]
      ])
      assert.deepStrictEqual([...mappings.all()], [routed])
    }).pipe(Effect.provide(Mappings.layer))
  )

  it.effect("notes each refusal with its caller, and passes it on", () =>
    Effect.gen(function* () {
      const journal = new Journal(() => 0)
      const error = (message: string) => ({ _tag: "No", message })
      const driver = recordRefusals(
        journal,
        Driver.of({
          mapPorts: () => Effect.fail(error("no port")),
          mapGroups: () => Effect.fail({ group: 1, error: error("no group") }),
          unmapPorts: ({ bindings }) =>
            bindings.length === 0 ? Effect.void : Effect.fail(error("no release"))
        })
      )
      const asked = group("80", ["tcp 0.0.0.0 10.0.0.1:80"])
      const binding = { ...asked.entries[0], port: 80 } as never
      for (const call of [
        driver.mapPorts(asked),
        driver.mapGroups?.([asked]) ?? Effect.void,
        driver.unmapPorts({ bindings: [binding], labels: new Map() })
      ])
        assert.isTrue(
          Exit.isFailure(yield* Effect.exit(Effect.scoped(call as Effect.Effect<unknown, unknown>)))
        )
      yield* driver.unmapPorts({ bindings: [], labels: new Map() })
      assert.deepStrictEqual(
        journal.after(0).map(({ kind, text, key, owner }) => [kind, text, key, owner]),
        ["no port", "no group", "no release"].map((text) => ["refused", text, null, "cli"])
      )
      const { mapGroups: _, ...alone } = driver
      assert.notProperty(recordRefusals(journal, Driver.of(alone)), "mapGroups")
    }).pipe(Effect.provideService(CurrentOwner, "cli"))
  )
})
