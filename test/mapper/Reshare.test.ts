import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { MemoryStore } from "../../src/mapper/MappingStore.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { slotsText } from "../../src/protocol/Slots.ts"
import { map, testMapper as test, unmapGroup } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { host } from "../support/memoryHost.ts"

const replica = (number: number) =>
  group("8080", [`tcp 0.0.0.0 172.17.0.${number}:80`], { "portmapper.share": "web" })

/** `172.17.0.2:80 slots 0-31`, as the kernel, the relay and the record have it. */
const slots = Effect.gen(function* () {
  const { rules, routes } = yield* host
  const store = yield* MemoryStore
  const ofLine = (line: string) => / -> (.*) of /.exec(line)?.[1]
  const ofRecord = store
    .records()
    .map(
      ({ mapping: { backend, share } }) => `${backend.address.text}:80 slots ${slotsText(share?.slots ?? [])}`
    )
  return { kernel: rules.map(ofLine), relay: routes.map(ofLine), record: ofRecord.sort() }
})

/** One of three backends leaves its service, while this step fails. */
const leaving = (step: string) =>
  Effect.gen(function* () {
    for (const number of [2, 3, 4]) yield* map(replica(number))
    const before = yield* slots
    yield* Effect.provideService(unmapGroup(replica(3)), Steps, (each) =>
      each === step ? Effect.fail(new InjectedFailure({ step })) : Effect.void
    )
    const { kernel, ...others } = yield* slots
    assert.notDeepEqual(kernel, before.kernel)
    return { kernel, ...others }
  })

describe("other slots of a service's backends", () => {
  test("are relayed and recorded as the kernel has them", () =>
    Effect.gen(function* () {
      const { kernel, relay, record } = yield* leaving("none")
      assert.lengthOf(kernel, 2)
      assert.deepStrictEqual([relay, record], [kernel, kernel])
    }))

  for (const [what, step] of [
    ["relay", "Relay.open"],
    ["record", "MappingStore.put"]
  ] as const)
    test(`come into the ${what} at a later attempt where it refused them`, () =>
      Effect.gen(function* () {
        const refusing = yield* leaving(step)
        assert.notDeepEqual(refusing[what], refusing.kernel)
        yield* TestClock.adjust("1 second")
        const { kernel, relay, record } = yield* slots
        assert.deepStrictEqual([kernel, relay, record], Array(3).fill(refusing.kernel))
      }))
})
