/** What a mapper holds of its in-memory host, and the giving back of it all. */
import { assert } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { MemoryStore } from "../../src/mapper/MappingStore.ts"
import type { PortMapper } from "../../src/mapper/PortMapper.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { MemoryRelay } from "../../src/relay/Relay.ts"

export type MemoryServices = Layer.Success<ReturnType<typeof PortMapper.layerMemory>>

/** All that a mapper can leave on its host. */
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

export const unmapAll = Effect.gen(function* () {
  const driver = yield* Driver
  const store = yield* MemoryStore
  const bindings = store.records().map(({ mapping }) => mapping)
  yield* driver.unmapPorts({ bindings, labels: new Map() })
  assert.deepStrictEqual(yield* host, nothing)
})
