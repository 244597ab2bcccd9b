import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import type { Capabilities } from "../../src/mapper/Plan.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { conform, conformanceJunit, conformanceText } from "../../src/testing/index.ts"
import { servedWire } from "./plugin.ts"
import { wrong } from "./wrong.ts"

const options = { activate: true, seed: 1, runs: 10 }

const modes: Readonly<Record<string, Partial<Capabilities>>> = {
  nat: {},
  "nat without a relay": { relayed: [] },
  engine: { defaultMode: "engine" },
  "engine without a relay": { defaultMode: "engine", natUnavailable: "nft was not found", relayed: [] },
  proxy: { defaultMode: "proxy", natUnavailable: "nft was not found" },
  routed: { defaultMode: "routed" }
}

describe("conform on our plugin, over its Unix socket", () => {
  for (const [name, capabilities] of Object.entries(modes))
    it.live(`finds that everything holds: ${name}`, () =>
      Effect.gen(function* () {
        const { wire } = yield* servedWire(capabilities)
        const result = yield* conform(wire, options)
        const broken = result.checked.filter(({ standing }) => standing === "broken")
        if (broken.length > 0) assert.fail(conformanceText(result))
        const skipped = result.checked
          .filter(({ standing }) => standing === "skipped")
          .map(({ id, why }) => `${id}: ${why}`)
        if (name === "routed")
          assert.isTrue(skipped.every((text) => text.endsWith("it gives out no host ports")))
        else
          assert.deepStrictEqual(
            skipped.filter((text) => !text.includes("did not grant every entry")),
            []
          )
      }).pipe(Effect.scoped)
    )

  it.live("leaves nothing mapped", () =>
    Effect.gen(function* () {
      const { wire } = yield* servedWire()
      yield* conform(wire, { ...options, activate: false })
      const listed = yield* wire.send({
        method: "POST",
        path: "/PortMapper.ListPorts",
        headers: [["Host", "x"]],
        body: "{}"
      })
      assert.strictEqual(listed.body, '{"Mappings":[]}\n')
    }).pipe(Effect.scoped)
  )
})

describe("conform on a plugin with one fault", () => {
  for (const { fault, named, wire } of wrong)
    it.live(`names it and no other: it ${fault}`, () =>
      Effect.gen(function* () {
        const driver = Context.get(yield* Layer.build(PortMapper.layerMemory()), Driver)
        const result = yield* conform(wire(driver), options)
        const broken = result.checked.filter(({ standing }) => standing === "broken").map(({ id }) => id)
        assert.deepStrictEqual(broken, [named], conformanceText(result))
        const [one] = result.checked.filter(({ standing }) => standing === "broken")
        assert.isAbove(one?.exchanges.length ?? 0, 0)
        assert.strictEqual(result.conforms, one?.required === false)
      }).pipe(Effect.scoped)
    )
})

describe("the report of conform", () => {
  it.effect("shows what does not hold with everything that was said, also as XML", () =>
    Effect.gen(function* () {
      const result = yield* conform(
        {
          send: () =>
            Effect.succeed({ status: 500, headers: {}, body: JSON.stringify({ Err: "<no> & \u0001" }) })
        },
        { activate: false, seed: 3, runs: 1 }
      )
      const text = conformanceText(result)
      assert.include(text, "broken  map-answer")
      assert.include(text, "POST /PortMapper.MapPorts HTTP/1.1\nHost: plugin.moby.localhost\n")
      assert.match(text, /does not conform: \d+ hold, \d+ broken, \d+ skipped \(seed 3\)$/)
      const xml = conformanceJunit(result)
      assert.include(
        xml,
        '<testcase classname="conform" name="map-answer"><failure message="refused: &lt;no&gt; &amp; \ufffd">'
      )
      assert.include(
        xml,
        '<testcase classname="conform" name="handshake"><skipped message="a live plugin is not activated unless told"/>'
      )
    })
  )
})
