/** The harness over transports: each script on its own plugin, whose list of mappings is checked after every call. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { exploreRemote, foundText, type ModelHost, wireTarget } from "../../src/testing/index.ts"
import { wireOf } from "../conformance/plugin.ts"
import { hosts } from "./hosts.ts"
import { remoteTargets } from "./remoteTargets.ts"
import { searchEffect, seed } from "./seed.ts"

console.log(`the harness's seed over transports: PORTMAPPER_SEED=${seed}`)

const hostOf = (name: string): ModelHost => {
  const known = hosts[name]
  if (known === undefined) throw new Error(`there is no host of ${name}`)
  return { ...known, ephemeral: { range: known.ephemeral.range, reserved: [] } }
}

describe("the mapper over a transport, compared with the model", () => {
  for (const [name, open] of Object.entries(remoteTargets))
    for (const of of ["nat", "routed"])
      it.live(`agrees with it over ${name}, on a host of ${of}`, () =>
        Effect.gen(function* () {
          const host = hostOf(of)
          const { found } = yield* searchEffect((from) =>
            exploreRemote({ seed: from, runs: 10, host, target: open(host), reach: "callers" })
          )
          if (found !== undefined) assert.fail(foundText(found, host))
        })
      )
})

describe("the harness over a transport", () => {
  it.live("finds a fault and shrinks the script", () =>
    Effect.gen(function* () {
      const host = hostOf("nat")
      const target = Effect.map(Layer.build(PortMapper.layerMemory()), (services) => {
        const driver = Context.get(services, Driver)
        return wireTarget(wireOf({ ...driver, unmapPorts: () => Effect.void }))
      })
      const found = yield* exploreRemote({ seed: 3, runs: 50, host, target, reach: "callers" })
      assert.deepStrictEqual(
        found?.script.map((step) => step.do),
        ["map"]
      )
      assert.match(found?.violation.why ?? "", /^listed: should not have /)
    })
  )
})
