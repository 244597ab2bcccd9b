/**
 * A host on which the mapper is killed and restarted. State that outlives a process is kept from one run to the
 * next: the bytes of the store, the kernel's rules, the sockets of others. Everything else is new in each run.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { ByteCounter } from "../../src/firewall/ByteCounter.ts"
import { Conntrack, MemoryConntrack } from "../../src/firewall/Conntrack.ts"
import { Firewall, MemoryFirewall, type Rule } from "../../src/firewall/Firewall.ts"
import { Backends, MapperConfig } from "../../src/mapper/MapperContext.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { Mappings } from "../../src/mapper/model/Mapping.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import type { Capabilities } from "../../src/mapper/plan/Plan.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { HostSockets, MemoryHost } from "../../src/ports/HostSockets.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { MemoryRelay, Relay } from "../../src/relay/Relay.ts"
import { temporaryFolder } from "./folders.ts"
import { entry } from "./groups.ts"
import { storedTexts } from "./mappings.ts"

const layers = Layer.mergeAll(
  Mappings.layer,
  HostSockets.layerMemory,
  Firewall.layerMemory,
  Conntrack.layerMemory,
  ByteCounter.layerMemory,
  Relay.layerMemory,
  Backends.layerUnknown
)

export type MapperLife = Layer.Success<typeof layers> | PortAllocator | MappingStore | MapperConfig
export type Life = MapperLife | Driver

const capabilities: Capabilities = {
  defaultMode: "nat",
  natUnavailable: undefined,
  marksAccepted: false,
  ipv6: true,
  relayed: ["tcp", "udp"]
}

export const makeLives = Effect.gen(function* () {
  const root = yield* temporaryFolder
  let count = 0
  let directory = Path.join(root, "0")
  let rules: ReadonlyArray<Rule> = []
  const taken = new Set<string>()
  let killed = false

  /** Saves the host's state at this moment, since the process's fibers may still run after its death. */
  const kill = Effect.gen(function* () {
    if (killed) return
    killed = true
    const firewall = yield* Firewall
    rules = (yield* Effect.orDie(firewall.read)).rules
    const next = Path.join(root, `${++count}`)
    Fs.cpSync(directory, next, { recursive: true })
    directory = next
  })

  /** A process up to the start of the mapper; killed at the end, if not before. */
  const mapperLife = <A, E, R>(use: Effect.Effect<A, E, R>, config: Partial<Capabilities> = {}) =>
    Effect.gen(function* () {
      killed = false
      const scope = yield* Scope.make()
      const base = yield* Layer.buildWithScope(Layer.fresh(layers), scope)
      const host = Context.get(base, MemoryHost)
      for (const text of taken) {
        const [protocol, address, port] = text.split(" ") as [string, string, string]
        const { protocol: of, host: at } = entry(`${protocol} ${address} 172.17.0.2:80`)
        host.take(of, at, Number(port))
      }
      host.setEphemeral({ range: { first: 40001, last: 40100 }, reserved: [] })
      yield* Context.get(base, Firewall).replace(rules)
      const services = yield* Layer.buildWithScope(
        Layer.mergeAll(
          PortAllocator.layer(),
          SqliteMappingStore.layer(directory),
          Layer.succeed(MapperConfig, { ...capabilities, ...config })
        ).pipe(Layer.provideMerge(Layer.succeedContext(base))),
        scope
      )
      const result = yield* Effect.exit(Effect.provideContext(use, services))
      yield* Effect.provideContext(kill, services)
      yield* Scope.close(scope, Exit.void)
      return yield* result
    })

  return {
    kill,
    mapperLife,
    /** A whole process: restored, and serving. */
    life: <A, E, R>(use: Effect.Effect<A, E, R>, config?: Partial<Capabilities>) =>
      mapperLife(
        Effect.scoped(
          Effect.flatMap(Layer.build(PortMapper.layer), (driver) => Effect.provideContext(use, driver))
        ),
        config
      ),
    /** From the next run on, another process has the port: `tcp 0.0.0.0 8080`. */
    take: (text: string) => void taken.add(text),
    free: (text: string) => void taken.delete(text),
    /** The state folder of the next run. */
    directory: () => directory
  }
})

/** Everything on the host that belongs to mappings. */
export const snapshot = Effect.gen(function* () {
  const sockets = yield* MemoryHost
  const firewall = yield* MemoryFirewall
  const relay = yield* MemoryRelay
  const store = yield* MappingStore
  const driver = yield* Driver
  const listed = driver.listPorts === undefined ? [] : yield* driver.listPorts
  return {
    sockets: sockets.open().map(({ socket }) => socket),
    rules: firewall.rules(),
    routes: relay.routes(),
    stored: storedTexts((yield* store.load).mappings),
    listed: listed
      .map(({ frontendIp, frontendPort, owner, state }) => `${frontendIp} ${frontendPort} ${owner} ${state}`)
      .sort()
  }
})

export const nothing = { sockets: [], rules: [], routes: [], stored: [], listed: [] }

export const flushed = MemoryConntrack.useSync((conntrack) => [...conntrack.flushed()])

/**
 * Runs it in a process that is killed at its nth step from now; returns the step, or `undefined` where there are
 * fewer.
 */
export const killedAt = <A, E, R>(
  stop: number,
  kill: Effect.Effect<void, never, Firewall>,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<string | undefined, E, R | Firewall> =>
  Effect.gen(function* () {
    const firewall = yield* Firewall
    let passed = 0
    let stoppedAt: string | undefined
    const exit = yield* Effect.exit(
      Effect.provideService(effect, Steps, (step) => {
        if (++passed !== stop) return Effect.void
        stoppedAt = step
        return Effect.andThen(
          Effect.provideService(kill, Firewall, firewall),
          Effect.fail(new InjectedFailure({ step }))
        )
      })
    )
    if (stoppedAt === undefined) yield* exit
    return stoppedAt
  })
