/** What a mapper holds of its in-memory host, and the release of it all. */
import { assert } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { MemoryStore } from "../../src/mapper/MappingStore.ts"
import type { PortMapper } from "../../src/mapper/PortMapper.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { MemoryRelay } from "../../src/relay/Relay.ts"
import { atEveryStep } from "./steps.ts"

export type MemoryServices = Layer.Success<ReturnType<typeof PortMapper.layerMemory>>

/** Everything that a mapper can leave on its host. */
export const host = Effect.gen(function* () {
  const sockets = yield* MemoryHost
  const firewall = yield* MemoryFirewall
  const relay = yield* MemoryRelay
  const store = yield* MemoryStore
  return {
    sockets: sockets.open().map(({ socket }) => socket),
    rules: firewall.rules(),
    routes: relay.routes(),
    stored: store.records().map(({ mapping, state }) => `${mapping.host.text}:${mapping.port} ${state}`)
  }
})

export const nothing = { sockets: [], rules: [], routes: [], stored: [] }

/** Stops a mapping at each of its steps, in every service, and checks that nothing is left. */
export const leavesNothing = Effect.fnUntraced(function* <E, R>(
  mapping: (done: Effect.Effect<void>) => Effect.Effect<unknown, E, R>
) {
  const steps = yield* atEveryStep(
    mapping,
    (how, step) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* host, nothing, `${how} at ${step}`)
      }),
    unmapAll
  )
  assert.deepStrictEqual(
    [...new Set(steps)],
    ["HostSockets.open", "Firewall.apply", "Conntrack.flush", "Relay.open", "MappingStore.put"]
  )
})

export const unmapAll = Effect.gen(function* () {
  const driver = yield* Driver
  const store = yield* MemoryStore
  const bindings = store.records().map(({ mapping }) => mapping)
  yield* driver.unmapPorts({ bindings, labels: new Map() })
  assert.deepStrictEqual(yield* host, nothing)
})
