/** A deterministic test with the in-memory services: `node --test failing-firewall.test.ts`. */
import assert from "node:assert/strict"
import { test } from "node:test"
import { Effect } from "effect"
import { InjectedFailure, PortMapper, Steps } from "portmapper"
import { listPorts, mapPorts } from "portmapper/memory"

const request = {
  Reqs: [
    {
      Proto: 6,
      BackendIP: "172.17.0.2",
      BackendPort: 80,
      FrontendIP: "0.0.0.0",
      FrontendPort: 8080,
      FrontendPortEnd: 8080
    }
  ]
}

/** Every operation of an in-memory service passes a step, `Service.method`, before it changes anything. */
const failingAt = (failing: string) => (step: string) =>
  step === failing ? Effect.fail(new InjectedFailure({ step })) : Effect.void

const failing = Effect.provideService(Steps, failingAt("Firewall.apply"))

test("a firewall that fails leaves nothing mapped, and the port free", () =>
  Effect.gen(function* () {
    const error = yield* Effect.flip(failing(mapPorts(request)))
    assert.match(error.message, /injected failure at Firewall\.apply/)
    assert.deepEqual(yield* listPorts, { Mappings: [] })

    const { PortBindings } = yield* mapPorts(request)
    assert.equal(PortBindings?.[0]?.FrontendPort, 8080)
  }).pipe(Effect.provide(PortMapper.layerMemory()), Effect.runPromise))
