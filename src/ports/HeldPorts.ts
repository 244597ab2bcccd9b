/** The held ports: which frontends share which bound socket, and what collides with them. */

import { Effect, Exit } from "effect"
import { type Address, covers, isUnspecified } from "../protocol/Address.ts"
import type { PublishedPort } from "../protocol/PortBinding.ts"
import type { PortRange } from "../protocol/PortRange.ts"
import type { HostSocket, HostSockets, SocketError } from "./HostSockets.ts"
import { type Frontend, type PortSet, PortTable } from "./PortTable.ts"

/**
 * One frontend's hold on a port. `socket` may be bound to the unspecified address and shared with others of its
 * group.
 */
export interface Hold extends PublishedPort {
  readonly socket: HostSocket
}

/** A bound socket and the frontends that share it. */
interface Bound {
  readonly socket: HostSocket
  readonly holds: Set<Hold>
}

/** The system refused a socket for this frontend. */
export interface Refused {
  readonly frontend: Frontend
  readonly error: SocketError
}

export class HeldPorts {
  readonly #table = new PortTable()
  readonly #boundTo = new Map<Hold, Bound>()
  readonly #sockets: HostSockets["Service"]

  constructor(sockets: HostSockets["Service"]) {
    this.#sockets = sockets
  }

  /** The first frontend that collides with another mapping's hold, if any. */
  blocked(
    frontends: ReadonlyArray<Frontend>,
    port: number,
    beside: ReadonlyArray<Hold>
  ): Frontend | undefined {
    const isOwn = ({ protocol }: Frontend, host: Address) =>
      beside.some(
        (hold) =>
          hold.port === port &&
          hold.protocol === protocol &&
          (hold.host.key === host.key || hold.socket.host.key === host.key)
      )
    return frontends.find((frontend) =>
      this.#table.collisions(frontend, port).some((host) => !isOwn(frontend, host))
    )
  }

  /** See `PortTable.firstFree`. */
  firstFree(
    frontends: ReadonlyArray<Frontend>,
    range: PortRange,
    from: number,
    except: ReadonlyArray<PortSet>
  ): number | undefined {
    return this.#table.firstFree(frontends, range, from, except)
  }

  /**
   * Holds this very port for all frontends and returns the holds in their order; holds nothing if it fails or is
   * interrupted.
   */
  holdAll(
    frontends: ReadonlyArray<Frontend>,
    port: number,
    beside: ReadonlyArray<Hold>
  ): Effect.Effect<ReadonlyArray<Hold>, Refused> {
    const made: Array<Hold> = []
    const holdOne = (frontend: Frontend) =>
      Effect.mapError(
        Effect.uninterruptible(Effect.suspend(() => this.#holdNext(frontend, port, made, beside))),
        (error): Refused => ({ frontend, error })
      )
    const [only] = frontends
    const held =
      only !== undefined && frontends.length === 1
        ? Effect.as(holdOne(only), made)
        : holdEach(frontends, holdOne, made)
    return Effect.onExit(held, (exit) => (Exit.isSuccess(exit) ? Effect.void : this.release(made)))
  }

  release(holds: ReadonlyArray<Hold>): Effect.Effect<void> {
    const [only] = holds
    if (holds.length > 1)
      return Effect.uninterruptible(Effect.forEach(holds, (hold) => this.#release(hold), { discard: true }))
    return only === undefined ? Effect.void : Effect.uninterruptible(this.#release(only))
  }

  /** Uses a socket of the same group that covers the frontend, otherwise a new one. */
  #holdNext(
    frontend: Frontend,
    port: number,
    made: Array<Hold>,
    beside: ReadonlyArray<Hold>
  ): Effect.Effect<void, SocketError> {
    const stands = ({ protocol, socket }: Hold) =>
      protocol === frontend.protocol && socket.port === port && covers(socket.host, frontend.host)
    const cover = made.find(stands) ?? beside.find(stands)
    const shared = cover === undefined ? undefined : this.#boundTo.get(cover)
    if (shared !== undefined) {
      made.push(this.#hold(shared, frontend, port))
      return Effect.void
    }
    return Effect.map(this.#sockets.open(frontend.protocol, frontend.host, port), (socket) => {
      // An adopted socket may cover more than was requested, and holds all of it.
      this.#table.add(socket, port)
      made.push(this.#hold({ socket, holds: new Set() }, frontend, port))
    })
  }

  #hold(bound: Bound, { protocol, host }: Frontend, port: number): Hold {
    const held: Hold = { protocol, host, port, socket: bound.socket }
    bound.holds.add(held)
    this.#boundTo.set(held, bound)
    this.#table.add(held, port)
    return held
  }

  #release(held: Hold): Effect.Effect<void> {
    return Effect.suspend(() => {
      const bound = this.#boundTo.get(held)
      if (bound === undefined) return Effect.void
      this.#boundTo.delete(held)
      bound.holds.delete(held)
      if (bound.holds.size === 0) {
        this.#table.delete(held, held.port)
        this.#table.delete(bound.socket, held.port)
        return this.#sockets.close(bound.socket)
      }
      if (held.host.key !== bound.socket.host.key) this.#table.delete(held, held.port)
      return Effect.void
    })
  }
}

/** The unspecified addresses first, since they cover the others. */
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
