import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer } from "effect"
import { httpWire } from "../../adapters/docker/HttpWire.ts"
import { socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import type { Capabilities } from "../../src/mapper/plan/Plan.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import {
  type CheckResult,
  conform,
  conformanceJunit,
  conformanceText,
  NoAnswer,
  type Wire
} from "../../src/testing/index.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { reference } from "../support/reference.ts"
import { servedWire, wireOf } from "./plugin.ts"
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
    it.live(`finds that every rule holds: ${name}`, () =>
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

describe("conform on the Go reference, which grants every request", () => {
  testNeeding("reports that fault, and no other", ["go"], () =>
    Effect.gen(function* () {
      const wire = httpWire(socketAddress(yield* reference))
      const result = yield* conform(wire, options)
      const of = (standing: CheckResult) =>
        result.checked.filter((each) => each.standing === standing).map(({ id, why }) => `${id}: ${why}`)
      assert.deepStrictEqual(of("broken"), [
        "conflict: port 20103 was granted twice",
        "ephemeral: port 49153 was given twice",
        "ephemeral-rising: port 49153 was given again",
        "range-exhausted: it was granted",
        "differing-ports: they were granted",
        "bad-protocol: it was granted",
        "bad-range: it was granted",
        `at-once-ephemeral: ports ${Array.from({ length: 12 }, () => "49153").join(", ")}`
      ])
      assert.deepStrictEqual(of("skipped"), [
        "conflict-text: it was granted",
        "failure-status: it was granted",
        "failure-body: it was granted",
        "range-exhausted-text: it was granted",
        "unmap-one: conflicts are granted",
        "failed-group: it was granted",
        "failed-group-others: it was granted",
        "any-address: conflicts are granted",
        "at-once-exact: conflicts are granted",
        "random-runs: the broken checks would break it too"
      ])
      assert.isFalse(result.conforms)
    }).pipe(Effect.scoped, Effect.runPromise)
  )
})

const unmapping = (FrontendIP: string, FrontendPort: number, BackendIP: string, BackendPort: number) => ({
  method: "POST",
  path: "/PortMapper.UnmapPorts",
  headers: [],
  body: JSON.stringify({ PortBindings: [{ Proto: 6, FrontendIP, FrontendPort, BackendIP, BackendPort }] })
})

describe("conform that is interrupted, or gets no answer", () => {
  it.live("unmaps what it mapped, at whichever call that happens", () =>
    Effect.gen(function* () {
      const driver = Context.get(yield* Layer.build(PortMapper.layerMemory()), Driver)
      const right = wireOf(driver)
      let total = Number.POSITIVE_INFINITY
      // Every 7th call is enough to meet each kind of check.
      for (let stop = 3; stop < total; stop += 7)
        for (const how of ["interrupted", "lost"] as const) {
          let calls = 0
          const reached = yield* Deferred.make<void>()
          const wire: Wire = {
            send: (request) =>
              Effect.suspend(() => {
                if (++calls !== stop) return right.send(request)
                return Deferred.succeed(reached, undefined).pipe(
                  Effect.andThen(Effect.sleep(0)),
                  Effect.andThen(right.send(request)),
                  Effect.andThen((answer) =>
                    how === "lost" ? Effect.fail(new NoAnswer({ detail: "gone" })) : Effect.succeed(answer)
                  )
                )
              })
          }
          const running = yield* Effect.forkChild(Effect.ignore(conform(wire, { ...options, runs: 2 })))
          if (how === "interrupted") {
            yield* Effect.raceFirst(Deferred.await(reached), Fiber.await(running))
            yield* Fiber.interrupt(running)
          } else yield* Fiber.await(running)
          if (calls < stop) total = stop
          const listed = yield* driver.listPorts ?? Effect.succeed([])
          // A request for any port or a range that got no answer leaves the caller without a port to unmap.
          const unknown = how === "lost" ? 1 : 0
          assert.isAtMost(listed.length, unknown, `${how} at call ${stop}: ${JSON.stringify(listed)}`)
          for (const { frontendIp, frontendPort, backendIp, backendPort } of listed)
            yield* wireOf(driver).send(unmapping(frontendIp, frontendPort, backendIp, backendPort))
        }
    }).pipe(Effect.scoped)
  )
})

describe("conform on a plugin with one fault", () => {
  for (const { fault, named, wire } of wrong)
    it.live(`reports exactly that fault: it ${fault}`, () =>
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
  it.effect("shows each broken rule with all requests and answers, also as XML", () =>
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
      assert.include(text, "> POST /PortMapper.MapPorts HTTP/1.1\n> Host: plugin.moby.localhost\n")
      assert.include(text, '< HTTP/1.1 500\n<\n< {"Err":"<no> & \\u0001"}\n')
      assert.match(text, /does not conform: \d+ hold, \d+ broken, \d+ skipped \(seed 3\)$/)
      const xml = conformanceJunit(result)
      assert.include(
        xml,
        '<testcase classname="conform" name="map-answer"><failure message="refused: &lt;no&gt; &amp; \ufffd">'
      )
      assert.include(
        xml,
        '<testcase classname="conform" name="handshake"><skipped message="a live plugin is not activated unless requested"/>'
      )
    })
  )
})
