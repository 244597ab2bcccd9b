/**
 * Picks host ports and holds them: one port for a whole group, free on all of its addresses in the table and in the
 * system. A port is held by a bound socket until the last frontend that rests on the socket is released.
 */
import { Context, Effect, Exit, Layer, Schema } from "effect"
import { type Address, covers, isUnspecified } from "../protocol/Address.ts"
import { frontendText, type PortRequest } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import { type HostSocket, HostSockets, type SocketError, SocketErrorReason } from "./HostSockets.ts"
import { type PortRange, rangeText } from "./PortRange.ts"
import { type Frontend, PortSet, PortTable } from "./PortTable.ts"

/** One frontend's hold on a port. `socket` may be bound to the unspecified address and shared with others of its group. */
export interface Hold {
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
  readonly socket: HostSocket
}

/** The port is held by another mapping of ours. */
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

/** The system refused: another process has the port (`InUse`), no right to it, no such address, … */
export class BindFailed extends Schema.TaggedError<BindFailed>()("BindFailed", {
  frontend: Schema.String,
  reason: SocketErrorReason,
  detail: Schema.String
}) {
  override get message(): string {
    return `bind for ${this.frontend} failed: ${this.detail}`
  }
}

export type PortError = PortAllocated | PortsExhausted | BindFailed

export interface PortAllocatorOptions {
  /** The range for ephemeral ports, instead of the system's. */
  readonly ephemeral?: PortRange | undefined
}

export class PortAllocator extends Context.Service<
  PortAllocator,
  {
    /**
     * Holds one port for all frontends, answered in their order. An exact port is never substituted; a range and the
     * ephemeral ports are tried in rising order after the last one given from it, ports that the system reserves being
     * skipped for ephemeral requests only. Frontends of one call never collide with each other, nor with `beside`, the
     * holds that the same group has already. Nothing is held after a failure or an interruption.
     */
    readonly reserve: (
      frontends: ReadonlyArray<Frontend>,
      ports: PortRequest,
      beside: ReadonlyArray<Hold>
    ) => Effect.Effect<ReadonlyArray<Hold>, PortError>
    /** Whether this port may be the one that such a request gets. */
    readonly gives: (ports: PortRequest, port: number) => boolean
    /** Frees what the holds held. Releasing what is released does nothing. */
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

/** A bound socket and the frontends that rest on it. */
interface Bound {
  readonly socket: HostSocket
  readonly holds: Set<Hold>
}

/** How many ranges keep their place; past it the one used longest ago starts over. */
const rememberedRanges = 4096

const make = Effect.fnUntraced(function* (sockets: HostSockets["Service"], options: PortAllocatorOptions) {
  const system = yield* sockets.ephemeral
  const ephemeral = options.ephemeral ?? system.range
  const reserved = PortSet.of(system.reserved)
  const table = new PortTable()
  const boundTo = new Map<Hold, Bound>()
  const next = new Map<string, number>()

  /** The frontend that another mapping's hold stands in the way of, if any. */
  const blocked = (
    frontends: ReadonlyArray<Frontend>,
    port: number,
    beside: ReadonlyArray<Hold>
  ): Frontend | undefined =>
    frontends.find((frontend) =>
      table
        .collisions(frontend, port)
        .some(
          (host) =>
            !beside.some(
              (hold) =>
                hold.port === port &&
                hold.protocol === frontend.protocol &&
                (hold.host.key === host.key || hold.socket.host.key === host.key)
            )
        )
    )

  const hold = (bound: Bound, { protocol, host }: Frontend, port: number): Hold => {
    const held: Hold = { protocol, host, port, socket: bound.socket }
    bound.holds.add(held)
    boundTo.set(held, bound)
    table.add(held, port)
    return held
  }

  const releaseOne = (held: Hold): Effect.Effect<void> =>
    Effect.suspend(() => {
      const bound = boundTo.get(held)
      if (bound === undefined) return Effect.void
      boundTo.delete(held)
      bound.holds.delete(held)
      if (bound.holds.size === 0) {
        table.delete(held, held.port)
        table.delete(bound.socket, held.port)
        return sockets.close(bound.socket)
      }
      if (held.host.key !== bound.socket.host.key) table.delete(held, held.port)
      return Effect.void
    })

  const release = (holds: ReadonlyArray<Hold>) => {
    const [only] = holds
    if (holds.length > 1) return Effect.uninterruptible(Effect.forEach(holds, releaseOne, { discard: true }))
    return only === undefined ? Effect.void : Effect.uninterruptible(releaseOne(only))
  }

  /** Holds this very port for all frontends, the unspecified addresses first since they cover the others. */
  const holdAll = (frontends: ReadonlyArray<Frontend>, port: number, beside: ReadonlyArray<Hold>) => {
    const made: Array<Hold> = []
    const holdNext = (frontend: Frontend): Effect.Effect<void, SocketError> => {
      const stands = ({ protocol, socket }: Hold) =>
        protocol === frontend.protocol && socket.port === port && covers(socket.host, frontend.host)
      const cover = made.find(stands) ?? beside.find(stands)
      const shared = cover === undefined ? undefined : boundTo.get(cover)
      if (shared !== undefined) {
        made.push(hold(shared, frontend, port))
        return Effect.void
      }
      return Effect.map(sockets.open(frontend.protocol, frontend.host, port), (socket) => {
        // An adopted socket may cover more than was asked for, and holds all of it.
        table.add(socket, port)
        made.push(hold({ socket, holds: new Set() }, frontend, port))
      })
    }
    const holdOne = (frontend: Frontend) =>
      Effect.mapError(Effect.uninterruptible(Effect.suspend(() => holdNext(frontend))), (error) => ({
        frontend,
        error
      }))
    const [only] = frontends
    const held =
      only !== undefined && frontends.length === 1
        ? Effect.as(holdOne(only), made)
        : holdEach(frontends, holdOne, made)
    return Effect.onExit(held, (exit) => (Exit.isSuccess(exit) ? Effect.void : release(made)))
  }

  const holdEach = <E>(
    frontends: ReadonlyArray<Frontend>,
    holdOne: (frontend: Frontend) => Effect.Effect<void, E>,
    made: ReadonlyArray<Hold>
  ): Effect.Effect<ReadonlyArray<Hold>, E> => {
    const widestFirst = [...frontends].sort(
      (a, b) => Number(isUnspecified(b.host)) - Number(isUnspecified(a.host))
    )
    return Effect.map(Effect.forEach(widestFirst, holdOne, { discard: true }), () =>
      frontends.map((frontend) => made[widestFirst.indexOf(frontend)] as Hold)
    )
  }

  const refusal = ({ protocol, host }: Frontend, port: number, error: SocketError) =>
    new BindFailed({
      frontend: frontendText(protocol, host, port),
      reason: error.reason,
      detail: error.reason === "InUse" ? "address already in use" : error.detail
    })

  const reserveExact = (
    frontends: ReadonlyArray<Frontend>,
    port: number,
    beside: ReadonlyArray<Hold>
  ): Effect.Effect<ReadonlyArray<Hold>, PortAllocated | BindFailed> =>
    Effect.suspend((): Effect.Effect<ReadonlyArray<Hold>, PortAllocated | BindFailed> => {
      const taken = blocked(frontends, port, beside)
      if (taken !== undefined)
        return Effect.fail(
          new PortAllocated({ frontend: frontendText(taken.protocol, taken.host, port), hint: "" })
        )
      return Effect.mapError(holdAll(frontends, port, beside), ({ frontend, error }) =>
        refusal(frontend, port, error)
      )
    })

  const reserveWithin = Effect.fnUntraced(function* (
    frontends: ReadonlyArray<Frontend>,
    range: PortRange,
    except: PortSet | undefined
  ) {
    const key = `${frontends[0]?.protocol} ${except === undefined ? rangeText(range) : "ephemeral"}`
    const start = next.get(key) ?? range.first
    for (const [from, last] of [
      [start, range.last],
      [range.first, start - 1]
    ] as const) {
      let port = table.firstFree(frontends, { first: range.first, last }, from, except)
      while (port !== undefined) {
        const tried = yield* Effect.result(holdAll(frontends, port, []))
        if (tried._tag === "Success") {
          remember(key, port === range.last ? range.first : port + 1)
          return tried.success
        }
        const { frontend, error } = tried.failure
        if (error.reason !== "InUse") return yield* refusal(frontend, port, error)
        port =
          port === last
            ? undefined
            : table.firstFree(frontends, { first: range.first, last }, port + 1, except)
      }
    }
    const [first] = frontends
    return yield* new PortsExhausted({
      frontend: first === undefined ? "" : frontendText(first.protocol, first.host, 0),
      range: rangeText(range)
    })
  })

  const remember = (key: string, port: number) => {
    next.delete(key)
    next.set(key, port)
    if (next.size > rememberedRanges) for (const oldest of next.keys()) return void next.delete(oldest)
  }

  return PortAllocator.of({
    reserve: (frontends, ports, beside) => {
      if (frontends.length === 0) return Effect.succeed([])
      switch (ports._tag) {
        case "Exact":
          return reserveExact(frontends, ports.port, beside)
        case "Range":
          return reserveWithin(frontends, ports, undefined)
        case "Ephemeral":
          return reserveWithin(frontends, ephemeral, reserved)
      }
    },
    gives: (ports, port) => {
      switch (ports._tag) {
        case "Exact":
          return port === ports.port
        case "Range":
          return port >= ports.first && port <= ports.last
        case "Ephemeral":
          return port >= ephemeral.first && port <= ephemeral.last && !reserved.has(port)
      }
    },
    release
  })
})
