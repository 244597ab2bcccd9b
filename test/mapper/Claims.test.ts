import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  type Mapping,
  type MappingEntry,
  Mappings,
  noResources,
  type Status
} from "../../src/mapper/model/Mapping.ts"
import {
  claimsOf,
  conflictedOf,
  doubtfulHolders,
  holdersInTheWay,
  inSteps,
  releasedBy
} from "../../src/mapper/plan/Claims.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { endpoint, group } from "../support/groups.ts"
import { mapping } from "../support/mappings.ts"
import { planned } from "../support/planned.ts"

const answered: Status = { _tag: "Answered", pending: 0 }
const conflicted: Status = { _tag: "Conflicted", was: "Answered" }

type State = Mappings["Service"]

/** Adds an entry for `tcp HOST BACKEND` on port 8080. */
const add = (
  state: State,
  text: string,
  status: Status = answered,
  more: Partial<Mapping> = {}
): MappingEntry => {
  const entry = { mapping: mapping(text, 8080, more), status, resources: noResources, askedMillis: 0 }
  state.add(entry)
  return entry
}

const test = (title: string, body: (state: State) => void) =>
  it.effect(title, () => Effect.map(Mappings, body).pipe(Effect.provide(Mappings.layer)))

const web = planned(group("8080", ["tcp 0.0.0.0 172.17.0.2:80"]))

describe("claims", () => {
  it("take one step for groups that can't meet, and one for each where two of them may", () => {
    const counts = (...groups: ReadonlyArray<Group>) =>
      inSteps(groups.map(planned)).map((step) => step.length)
    const one = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])
    const dns = group("53", ["udp 0.0.0.0 172.17.0.2:53"])
    assert.deepStrictEqual(counts(one, dns), [2])
    assert.deepStrictEqual(counts(one, dns, group("8080", ["tcp 10.0.0.1 172.17.0.3:80"])), [1, 1, 1])
    assert.deepStrictEqual(counts(one, group("0", ["tcp 10.0.0.1 172.17.0.2:80"])), [1, 1])
  })

  test("name the entry that is mapped already, for the same backend alone", (state) => {
    const entry = add(state, "tcp 0.0.0.0 172.17.0.2:80")
    assert.deepStrictEqual(
      claimsOf(state, web, "engine").map((claim) => claim.entry),
      [entry]
    )
    const other = planned(group("8080", ["tcp 0.0.0.0 172.17.0.3:80"]))
    assert.deepStrictEqual(
      claimsOf(state, other, "engine").map((claim) => claim.entry),
      [undefined]
    )
  })

  test("make a mapping in conflict anew, after it was tried again", (state) => {
    const entry = add(state, "tcp 0.0.0.0 172.17.0.2:80", conflicted)
    assert.deepStrictEqual(conflictedOf(state, [web], "engine"), [entry])
    const [claim] = claimsOf(state, web, "engine")
    assert.deepStrictEqual([claim?.entry, claim?.conflicted], [undefined, entry])
  })

  test("meet the holders of their port on every address that theirs covers, but no conflicted one", (state) => {
    add(state, "tcp 10.0.0.1 172.17.0.3:80")
    add(state, "tcp 10.0.0.2 172.17.0.4:80", conflicted)
    add(state, "udp 0.0.0.0 172.17.0.5:80")
    add(state, "tcp :: [fd00::2]:80")
    const [met] = holdersInTheWay(state, web, claimsOf(state, web, "engine"), "engine")
    assert.strictEqual(met?.frontend, "0.0.0.0:8080/tcp")
    assert.deepStrictEqual(
      met?.holders.map((holder) => holder.mapping.host.text),
      ["10.0.0.1"]
    )
  })

  test("doubt a holder whose container had the time to start, and none that is about to be answered", (state) => {
    const holder = add(state, "tcp 0.0.0.0 172.17.0.3:80")
    const doubted = (nowMillis: number) => doubtfulHolders(state, [web], { owner: "engine", nowMillis })
    assert.deepStrictEqual([doubted(29_999), doubted(30_000)], [[], [holder]])
    holder.status = { _tag: "Answered", pending: 1 }
    assert.deepStrictEqual(doubted(30_000), [])
  })

  test("are released by frontend and backend, or by the frontend alone", (state) => {
    const entry = add(state, "tcp 0.0.0.0 172.17.0.2:80")
    const released = (backend: { address?: string; port: number }, port = 8080) =>
      releasedBy(state, [
        {
          ...{ protocol: "tcp", host: addressUnsafe("0.0.0.0"), port },
          backend: {
            address: backend.address === undefined ? undefined : addressUnsafe(backend.address),
            port: backend.port
          }
        }
      ])
    assert.deepStrictEqual(released({ address: "172.17.0.2", port: 80 }), [entry])
    assert.deepStrictEqual(released({ port: 0 }), [entry])
    assert.deepStrictEqual(released({ address: "172.17.0.3", port: 80 }), [])
    assert.deepStrictEqual(released({ address: "172.17.0.2", port: 80 }, 8081), [])
  })

  test("without a host port are released by their backend", (state) => {
    const entry: MappingEntry = {
      ...{ status: answered, resources: noResources, askedMillis: 0 },
      mapping: mapping("tcp 0.0.0.0 172.17.0.2:80", 0, { mode: "routed" })
    }
    state.add(entry)
    const release = {
      protocol: "tcp",
      host: addressUnsafe("0.0.0.0"),
      port: 0,
      backend: endpoint("172.17.0.2:80")
    } as const
    assert.deepStrictEqual(releasedBy(state, [release, release]), [entry])
  })
})
