/** Some clusters of the simulation. `npm run simulate` simulates more of them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { faultPairs, simulate } from "../../src/testing/simulation/Simulation.ts"

describe("a simulated cluster", () => {
  it("keeps ports unique, and what was answered, whatever strikes its hosts", () => {
    const struck = new Set<string>()
    for (let seed = 0; seed < 18; seed++) {
      const simulated = simulate({ seed, hosts: 3 })
      assert.deepStrictEqual(
        simulated.broken,
        undefined,
        `npm run simulate -- --seed ${seed} --events\n${simulated.events.join("\n")}`
      )
      for (const pair of simulated.struck.keys()) struck.add(pair)
    }
    assert.isAbove(struck.size, faultPairs.length / 2)
  })

  it("brings the same events for the same seed", () => {
    assert.deepStrictEqual(simulate({ seed: 42, hosts: 4 }), simulate({ seed: 42, hosts: 4 }))
  })

  it("shows a store that says it has claimed what it has not", () => {
    const find = (seed: number): string | undefined =>
      simulate({
        seed,
        hosts: 3,
        wrap: (store) => ({
          ...store,
          claim: (session, seen, claims) =>
            Effect.map(store.readCell(seen.cell), (state) => ({
              _tag: "Claimed",
              state: {
                ...state,
                claims: claims.map((claim) => ({
                  ...claim,
                  ...{ cell: seen.cell, host: session.host, lease: session.lease, revision: state.readAt }
                }))
              }
            }))
        })
      }).broken?.rule
    assert.strictEqual(find(1), "unique")
  })
})
