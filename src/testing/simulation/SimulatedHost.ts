/**
 * A host of a simulated cluster: its kernel, which outlives its processes, and the production mapper in each of them.
 * Faults strike at the steps that the mapper takes.
 */
import { Context, Duration, Effect, Exit, Layer, Scope } from "effect"
import { Cluster, type ClusterPortsOptions, clusterPorts } from "../../cluster/ClusterPorts.ts"
import { ClusterStore } from "../../cluster/ClusterStore.ts"
import { Etcd } from "../../cluster/Etcd.ts"
import { ByteCounter } from "../../firewall/ByteCounter.ts"
import { Conntrack } from "../../firewall/Conntrack.ts"
import { Firewall } from "../../firewall/Firewall.ts"
import { Backends, MapperConfig } from "../../mapper/MapperContext.ts"
import { MappingStore, MemoryStore } from "../../mapper/MappingStore.ts"
import { Mappings } from "../../mapper/model/Mapping.ts"
import { PortMapper } from "../../mapper/PortMapper.ts"
import { type InjectedFailure, Steps } from "../../memory/Steps.ts"
import { type HostSocket, HostSockets, MemoryHost } from "../../ports/HostSockets.ts"
import { PortAllocator } from "../../ports/PortAllocator.ts"
import { CurrentOwner, Driver, type ListedMapping } from "../../protocol/Driver.ts"
import type { Group, PortBinding, Release } from "../../protocol/PortBinding.ts"
import { Relay } from "../../relay/Relay.ts"
import { processSockets } from "../ProcessSockets.ts"
import { type HostFault, isRequestFault, type RequestFault } from "./Faults.ts"
import { makeLink } from "./Link.ts"
import { Process } from "./Schedule.ts"
import { strike } from "./Strike.ts"
import type { SimulatedWorld } from "./World.ts"

/** How a call ended: with its answer delivered, without, or not at all since its process was killed. */
export type CallEnd = "answered" | "failed" | "killed"

const ephemeralPorts = { first: 40000, last: 40191 }

const kernelLayer = Layer.mergeAll(
  HostSockets.layerMemory,
  Firewall.layerMemory,
  Conntrack.layerMemory,
  MappingStore.layerMemory
)
type Kernel = Layer.Success<typeof kernelLayer>

interface Life {
  readonly process: Process
  readonly scope: Scope.Closeable
  readonly sockets: ReturnType<typeof processSockets>
  readonly calls: Set<{ readonly ended: (end: CallEnd) => void }>
  services: Context.Context<Driver | Cluster> | undefined
  ending: ReturnType<ClusterPortsOptions["ending"]> | undefined
}

export class SimulatedHost {
  readonly name: string
  /** Since when nothing local has failed, stalled, stopped or begun. */
  disturbedMillis = 0
  isCut = false
  /** Whether it comes back by itself. */
  isForsaken = false
  readonly #world: SimulatedWorld
  readonly #kernel: Context.Context<Kernel>
  #life: Life | undefined
  #struck: RequestFault | undefined
  #thaw: () => void = () => {}

  constructor(world: SimulatedWorld, name: string) {
    this.name = name
    this.#world = world
    this.#kernel = this.#outside(Layer.buildWithScope(kernelLayer, Scope.makeUnsafe()))
    Context.get(this.#kernel, MemoryHost).setEphemeral({ range: ephemeralPorts, reserved: [] })
  }

  get isUp(): boolean {
    const life = this.#life
    return life?.services !== undefined && life.ending === undefined
  }

  /** What the host would find after a kill. */
  get records() {
    return Context.get(this.#kernel, MemoryStore).records()
  }

  /** `undefined` where it can't be asked now. */
  get listed(): ReadonlyArray<ListedMapping> | undefined {
    return this.#ask((services) => Context.get(services, Driver).listPorts ?? Effect.succeed([]))
  }

  get status() {
    return this.#ask((services) => Context.get(services, Cluster).status)
  }

  start(adopted: ReadonlyArray<HostSocket> = []): void {
    if (this.#life !== undefined) return
    const { schedule } = this.#world
    this.disturbedMillis = schedule.nowMillis
    const process = new Process(
      schedule,
      Context.make(Steps, (step) => this.#pass(life, step))
    )
    const scope = Scope.makeUnsafe()
    const sockets = processSockets(Context.get(this.#kernel, HostSockets))
    const life: Life = { process, scope, sockets, calls: new Set(), services: undefined, ending: undefined }
    this.#life = life
    const begin = Effect.andThen(
      adopted.length === 0 ? Effect.void : sockets.service.adopt(adopted),
      Layer.buildWithScope(this.#lifeLayer(life), scope)
    )
    process.run(begin).addObserver((exit) => {
      if (this.#life !== life) return
      if (Exit.isSuccess(exit)) life.services = exit.value
      else {
        this.#world.log(`${this.name}: can't start: ${reasonOf(exit)}`)
        this.kill()
      }
    })
  }

  /** Ends at once, and with it its sockets. */
  readonly kill = (): void => {
    const life = this.#life
    if (life === undefined) return
    this.#end(life)
    this.#outside(life.sockets.closeAll)
    this.#comeBack()
  }

  /** Ends once its calls have ended. `stay`: another process takes over. */
  readonly stop = (ending: ReturnType<ClusterPortsOptions["ending"]>): void => {
    const life = this.#life
    if (life?.services === undefined || life.ending !== undefined) return
    this.disturbedMillis = this.#world.schedule.nowMillis
    life.ending = ending
    if (life.calls.size === 0) this.#close(life, ending)
  }

  readonly freeze = (millis: number, isSuspended: boolean): void => {
    const { schedule, outside } = this.#world
    const process = this.#life?.process
    if (process === undefined || process.state !== "running") return
    process.freeze()
    const { nowMillis } = schedule
    this.#thaw = () => {
      if (process.state !== "frozen") return
      if (isSuspended) process.suspended.millis += schedule.nowMillis - nowMillis
      this.disturbedMillis = schedule.nowMillis
      process.thaw()
    }
    schedule.sleep(outside, millis, this.#thaw)
  }

  readonly cut = (millis: number): void => {
    const { schedule, outside, etcd } = this.#world
    if (this.isCut) return
    this.isCut = true
    etcd.cut(this.name)
    schedule.sleep(outside, millis, () => this.#mend())
  }

  /** A fault between two steps. */
  strike(fault: Exclude<HostFault, "fail" | "stall">): void {
    const life = this.#life
    if (life === undefined) return
    this.#world.outside.run(
      Effect.ignore(strike(this.#world, { host: this, process: life.process, step: "" }, fault))
    )
  }

  /** Ends what keeps it from working. */
  heal(): void {
    this.#thaw()
    this.#mend()
    this.start()
  }

  #mend(): void {
    this.isCut = false
    this.#world.etcd.mend(this.name)
  }

  /** `given` hears of an answer before its call has ended. `patienceMillis`: the caller gives up then. */
  map(
    group: Group,
    options: {
      readonly isLost: boolean
      readonly patienceMillis: number | undefined
      readonly given: (bindings: ReadonlyArray<PortBinding>) => void
      readonly ended: (end: CallEnd, reason: string) => void
    }
  ): void {
    const call = (driver: Driver["Service"]) =>
      Effect.scoped(
        Effect.gen({ self: this }, function* () {
          const bindings = yield* driver.mapPorts(group)
          yield* this.#moment("Call.answer")
          if (options.isLost) return yield* Effect.interrupt
          options.given(bindings)
        })
      ).pipe(
        Effect.tap(() => this.#moment("Call.answered")),
        Effect.provideService(CurrentOwner, "engine")
      )
    this.#call(call, options.ended, options.patienceMillis)
  }

  unmap(release: Release, ended: (end: CallEnd, reason: string) => void): void {
    this.#call((driver) => driver.unmapPorts(release), ended, undefined)
  }

  #call<E>(
    call: (driver: Driver["Service"]) => Effect.Effect<void, E>,
    ended: (end: CallEnd, reason: string) => void,
    patienceMillis: number | undefined
  ): void {
    const life = this.#life
    if (life?.services === undefined || life.ending !== undefined) return
    const { process, calls } = life
    const running = { ended: (end: CallEnd) => ended(end, end) }
    calls.add(running)
    const fiber = process.run(call(Context.get(life.services, Driver)))
    fiber.addObserver((exit) => {
      if (!calls.delete(running)) return
      ended(Exit.isSuccess(exit) ? "answered" : "failed", reasonOf(exit))
      if (life.ending !== undefined && calls.size === 0) this.#close(life, life.ending)
    })
    if (patienceMillis !== undefined)
      this.#world.schedule.sleep(process, patienceMillis, () => fiber.interruptUnsafe())
  }

  #ask<A, E>(question: (services: Context.Context<Driver | Cluster>) => Effect.Effect<A, E>): A | undefined {
    const life = this.#life
    if (life?.services === undefined || life.process.state !== "running") return undefined
    const exit = life.process.run(question(life.services)).pollUnsafe()
    return exit !== undefined && Exit.isSuccess(exit) ? exit.value : undefined
  }

  #outside<A, E>(effect: Effect.Effect<A, E>): A {
    const exit = this.#world.outside.run(effect).pollUnsafe()
    if (exit === undefined || Exit.isFailure(exit)) throw new Error("a kernel in memory answers at once")
    return exit.value
  }

  #close(life: Life, ending: ReturnType<ClusterPortsOptions["ending"]>): void {
    life.process.run(Scope.close(life.scope, Exit.void)).addObserver(() => {
      if (this.#life !== life) return
      const sockets = ending === "stay" ? life.sockets.handOver() : []
      this.#end(life)
      this.#outside(life.sockets.closeAll)
      if (ending === "stay") this.start(sockets)
      else this.#comeBack()
    })
  }

  #end(life: Life): void {
    this.#life = undefined
    this.disturbedMillis = this.#world.schedule.nowMillis
    life.process.kill()
    for (const call of [...life.calls]) {
      life.calls.delete(call)
      call.ended("killed")
    }
  }

  #comeBack(): void {
    const { schedule, random, outside, times } = this.#world
    schedule.sleep(outside, random.below(random.pick([500, 5000, 2 * times.ttlMillis])), () => {
      if (!this.isForsaken) this.start()
    })
  }

  #moment(step: string): Effect.Effect<void> {
    return Effect.withFiber((fiber) => Effect.ignore(fiber.getRef(Steps)(step)))
  }

  /** A step of one of the host's processes. */
  #pass(life: Life, step: string): Effect.Effect<void, InjectedFailure> {
    return Effect.suspend(() => {
      const { faults, log } = this.#world
      this.#struck = undefined
      const fault = faults.at(step)
      if (fault === undefined) return Effect.void
      log(`${this.name}: ${fault} at ${step}`)
      if (!isRequestFault(fault))
        return strike(this.#world, { host: this, process: life.process, step }, fault)
      this.#struck = fault
      return Effect.void
    })
  }

  #lifeLayer(life: Life) {
    const { random, outside, etcd, times, arm, revoked, wrap } = this.#world
    const link = makeLink({
      ...{ random, outside, process: life.process, etcd: etcd.connection(this.name) },
      arm: (fault) => arm(this.name, fault),
      revoked: (lease) => revoked.add(lease),
      struck: () => {
        const fault = this.#struck
        this.#struck = undefined
        return fault
      }
    })
    const store = Layer.effect(ClusterStore, Effect.map(ClusterStore, wrap)).pipe(
      Layer.provide(ClusterStore.layer({ name: "default" })),
      Layer.provide(Layer.succeed(Etcd, link))
    )
    const ports = clusterPorts({
      ...{ host: this.name, identity: this.name, address: undefined, ephemeral: ephemeralPorts },
      ttl: Duration.millis(times.ttlMillis),
      absence: Duration.millis(times.absenceMillis),
      ending: () => life.ending ?? "leave"
    }).pipe(Layer.provide(PortAllocator.layer({ ephemeral: ephemeralPorts })), Layer.provide(store))
    return PortMapper.layer.pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          ...[Mappings.layer, ports, Relay.layerMemory, Backends.layerUnknown, ByteCounter.layerNone],
          Layer.succeed(MapperConfig, capabilities)
        )
      ),
      Layer.provide(Layer.succeedContext(Context.add(this.#kernel, HostSockets, life.sockets.service))),
      Layer.fresh
    )
  }
}

const capabilities = {
  defaultMode: "nat",
  natUnavailable: undefined,
  marksAccepted: false,
  ipv6: true,
  relayed: ["tcp", "udp"],
  scope: "cluster"
} as const

const reasonOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) return ""
  const [reason] = exit.cause.reasons
  if (reason?._tag === "Fail") return (reason.error as { readonly message: string }).message
  return reason?._tag === "Die" ? `broke: ${reason.defect}` : "interrupted"
}
