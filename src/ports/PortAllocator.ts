/**
 * Picks host ports and holds them: one port for a whole group, free on all of its addresses in the table and in the
 * system. A bound socket holds the port until the last frontend that shares the socket is released.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { frontendText, type PortRequest, rangeFrontendText } from "../protocol/PortBinding.ts"
import { type PortRange, rangeText } from "../protocol/PortRange.ts"
import { HeldPorts, type Hold, type Refused } from "./HeldPorts.ts"
import { HostSockets, SocketErrorReason } from "./HostSockets.ts"
import { type Frontend, PortSet } from "./PortTable.ts"

export type { Hold }

/** Another of our mappings holds the port. */
export class PortAllocated extends Schema.TaggedError<PortAllocated>()("PortAllocated", {
  frontend: Schema.String,
  hint: Schema.String
}) {
  override get message(): string {
    return `bind for ${this.frontend} failed: port is already allocated${this.hint}`
  }
}

/** No port of the range is free on all addresses of the group. */
export class PortsExhausted extends Schema.TaggedError<PortsExhausted>()("PortsExhausted", {
  frontend: Schema.String,
  range: Schema.String
}) {
  override get message(): string {
    return `bind for ${this.frontend} failed: all ports are allocated in ${this.range}`
  }
}

/** The system refused: another process has the port (`InUse`), no permission, no such address, … */
export class BindFailed extends Schema.TaggedError<BindFailed>()("BindFailed", {
  frontend: Schema.String,
  reason: SocketErrorReason,
  detail: Schema.String
}) {
  override get message(): string {
    return `bind for ${this.frontend} failed: ${this.detail}`
  }
}

/** The port is to be unique in the cluster, and it is unknown whether it is; see `PortClaims`. */
export class ClusterUnavailable extends Schema.TaggedError<ClusterUnavailable>()("ClusterUnavailable", {
  frontend: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `bind for ${this.frontend} failed: the port can't be claimed in the cluster: ${this.detail}`
  }
}

export type PortError = PortAllocated | PortsExhausted | BindFailed | ClusterUnavailable

/** For whom a host claims a port of its cluster: hosts that are refused the port name it. */
export interface Claimant {
  readonly owner: string
  /** `172.17.0.2:80`. */
  readonly backend: string
  /** `NAME/ID`, where the labels say it. */
  readonly container: string | undefined
  /** Backends of one service share its port, on whatever hosts they are. */
  readonly service: string | undefined
}

export interface ReserveOptions {
  /** Makes the port unique in the cluster; without one it is unique on the host. */
  readonly claimant?: Claimant | undefined
  /** The port was reserved before: it is not given out, but kept. */
  readonly isKept?: boolean | undefined
  /** Of a range, and of the ephemeral ports, these are not given. */
  readonly except?: ReadonlyArray<PortSet> | undefined
}

export interface PortAllocatorOptions {
  /** The range for ephemeral ports, instead of the system's. */
  readonly ephemeral?: PortRange | undefined
}

export class PortAllocator extends Context.Service<
  PortAllocator,
  {
    /**
     * Holds one port for all frontends and returns the holds in their order. An exact port is never substituted; a
     * range and the ephemeral ports are tried in ascending order after the last port assigned from it. Only
     * ephemeral requests skip the ports that the system reserves. Frontends of one call never collide with each
     * other, nor with `beside`, the holds that the same group already has. Nothing is held after a failure or an
     * interruption.
     */
    readonly reserve: (
      frontends: ReadonlyArray<Frontend>,
      ports: PortRequest,
      beside: ReadonlyArray<Hold>,
      options?: ReserveOptions
    ) => Effect.Effect<ReadonlyArray<Hold>, PortError>
    /** Whether such a request may be given this port. */
    readonly gives: (ports: PortRequest, port: number) => boolean
    /** Frees what the holds held. Releasing a released hold does nothing. */
    readonly release: (holds: ReadonlyArray<Hold>) => Effect.Effect<void>
  }
>()("portmapper/ports/PortAllocator") {
  static readonly layer = (options: PortAllocatorOptions = {}) =>
    Layer.effect(
      PortAllocator,
      Effect.flatMap(HostSockets, (sockets) => make(sockets, options))
    )

  static readonly layerMemory = PortAllocator.layer().pipe(Layer.provideMerge(HostSockets.layerMemory))
}

/** How many ranges keep their position; beyond that, the least recently used one starts over. */
const rememberedRanges = 4096

const make = Effect.fnUntraced(function* (sockets: HostSockets["Service"], options: PortAllocatorOptions) {
  const system = yield* sockets.ephemeral
  const ephemeral = options.ephemeral ?? system.range
  const reserved = PortSet.of(system.reserved)
  const held = new HeldPorts(sockets)
  const next = new Map<string, number>()

  const reserveWithin = Effect.fnUntraced(function* (
    frontends: ReadonlyArray<Frontend>,
    { name, range }: { readonly name: string; readonly range: PortRange },
    except: ReadonlyArray<PortSet>
  ) {
    const key = `${frontends[0]?.protocol} ${name}`
    const start = next.get(key) ?? range.first
    for (const [from, last] of [
      [start, range.last],
      [range.first, start - 1]
    ] as const) {
      const within = { first: range.first, last }
      let port = held.firstFree(frontends, within, from, except)
      while (port !== undefined) {
        const tried = yield* Effect.result(held.holdAll(frontends, port, []))
        if (tried._tag === "Success") {
          remember(key, port === range.last ? range.first : port + 1)
          return tried.success
        }
        if (tried.failure.error.reason !== "InUse") return yield* refusal(tried.failure, port)
        port = port === last ? undefined : held.firstFree(frontends, within, port + 1, except)
      }
    }
    const isFull = (one: Frontend) => held.firstFree([one], range, range.first, except) === undefined
    const full = frontends.find(isFull) ?? frontends[0]
    return yield* new PortsExhausted({
      frontend: full === undefined ? "" : rangeFrontendText(full.protocol, full.host, range),
      range: rangeText(range)
    })
  })

  const remember = (key: string, port: number) => {
    next.delete(key)
    next.set(key, port)
    if (next.size > rememberedRanges) for (const oldest of next.keys()) return void next.delete(oldest)
  }

  return PortAllocator.of({
    reserve: (frontends, ports, beside, { except = [] } = {}) => {
      if (frontends.length === 0) return Effect.succeed([])
      if (ports._tag === "Exact") return reserveExact(held, frontends, ports.port, beside)
      return ports._tag === "Range"
        ? reserveWithin(frontends, { name: rangeText(ports), range: ports }, except)
        : reserveWithin(frontends, { name: "ephemeral", range: ephemeral }, [reserved, ...except])
    },
    gives: (ports, port) => {
      if (ports._tag === "Exact") return port === ports.port
      const { first, last } = ports._tag === "Range" ? ports : ephemeral
      return port >= first && port <= last && (ports._tag === "Range" || !reserved.has(port))
    },
    release: (holds) => held.release(holds)
  })
})

const reserveExact = (
  held: HeldPorts,
  frontends: ReadonlyArray<Frontend>,
  port: number,
  beside: ReadonlyArray<Hold>
): Effect.Effect<ReadonlyArray<Hold>, PortAllocated | BindFailed> =>
  Effect.suspend((): Effect.Effect<ReadonlyArray<Hold>, PortAllocated | BindFailed> => {
    const taken = held.blocked(frontends, port, beside)
    if (taken !== undefined)
      return Effect.fail(
        new PortAllocated({
          frontend: frontendText({ protocol: taken.protocol, host: taken.host, port }),
          hint: ""
        })
      )
    return Effect.mapError(held.holdAll(frontends, port, beside), (refused) => refusal(refused, port))
  })

const refusal = ({ frontend: { protocol, host }, error }: Refused, port: number): BindFailed =>
  new BindFailed({
    frontend: frontendText({ protocol, host, port }),
    reason: error.reason,
    detail: error.reason === "InUse" ? "address already in use" : error.detail
  })
