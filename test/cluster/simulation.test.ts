/** Some clusters of the simulation. `npm run simulate` simulates more of them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import { faultPairs, simulate } from "../../src/testing/simulation/Simulation.ts"

type Store = ClusterStore["Service"]

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

  const ruleOf = (change: (store: Store) => Partial<Store>): string | undefined => {
    const wrap = (store: Store): Store => ({ ...store, ...change(store) })
    for (let seed = 1; seed < 10; seed++) {
      const { broken } = simulate({ seed, hosts: 3, wrap })
      if (broken !== undefined) return broken.rule
    }
    return undefined
  }

  it("shows a store that says it has claimed what it has not", () => {
    const rule = ruleOf((store) => ({
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
    }))
    assert.strictEqual(rule, "unique")
  })

  it("shows a store that gives back what is held", () => {
    const rule = ruleOf((store) => ({
      renew: (session) =>
        Effect.tap(store.renew(session), () =>
          Effect.flatMap(store.readAll, ({ cells }) =>
            store.release(cells.flatMap(({ claims }) => claims.filter(({ host }) => host === session.host)))
          )
        )
    }))
    assert.strictEqual(rule, "kept")
  })

  it("shows a store that lets no host in", () =>
    assert.strictEqual(
      ruleOf(() => ({ open: () => Effect.never })),
      "granted"
    ))
})
