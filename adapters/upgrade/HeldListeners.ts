/** The plugin's listening sockets and idle connections, kept for its next generation or for a successor. */
import * as Fs from "node:fs"
import { Deferred, Effect, type Scope } from "effect"
import { libc } from "../linux/Libc.ts"
import { removeOwnFile } from "../node/SocketFile.ts"
import { removeWritten } from "../node/WrittenFile.ts"
import type { HandoverState, KeptConnection, KeptListener } from "./HandoverState.ts"
import type {
  AdoptedConnection,
  AdoptedListener,
  Details,
  ListenerHandoff,
  Place
} from "./ListenerHandoff.ts"

/** Starts with what was taken over, if anything. Everything kept is closed with the scope. */
export const holdListeners = (
  inherited: Pick<HandoverState, "listeners" | "connections"> | undefined
): Effect.Effect<HeldListeners, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new HeldListeners(inherited?.listeners ?? [], inherited?.connections ?? [])),
    (held) => Effect.sync(held.close)
  )

export class HeldListeners implements ListenerHandoff {
  private readonly held: Map<Place, KeptListener>
  private idle: ReadonlyArray<KeptConnection>
  private readonly unadopted: Set<Place>
  private readonly accepting = Deferred.makeUnsafe<void>()
  private leaving = false

  constructor(listeners: ReadonlyArray<KeptListener>, connections: ReadonlyArray<KeptConnection>) {
    this.held = new Map(listeners.map((listener) => [listener.place, listener]))
    this.unadopted = new Set(this.held.keys())
    this.idle = connections
  }

  readonly places = (): ReadonlyArray<Place> => [...this.held.keys()]

  readonly adopt = (place: Place): AdoptedListener | undefined => {
    const kept = this.held.get(place)
    const fd = kept === undefined ? undefined : duplicate(kept.fd)
    if (kept === undefined || fd === undefined) return undefined
    this.unadopted.delete(place)
    return { ...kept, fd }
  }

  readonly keep = (place: Place, fd: number, details: Details): boolean => {
    this.closeListener(place)
    const copy = duplicate(fd)
    if (copy !== undefined) this.held.set(place, { ...details, place, fd: copy })
    return copy !== undefined
  }

  readonly describe = (place: Place, details: Details): void => {
    const kept = this.held.get(place)
    if (kept !== undefined) this.held.set(place, { ...kept, ...details })
  }

  readonly takeConnections = (place: Place): ReadonlyArray<AdoptedConnection> => {
    const taken = this.idle.filter((connection) => connection.place === place)
    this.idle = this.idle.filter((connection) => connection.place !== place)
    return taken
  }

  readonly keepConnection = (place: Place, connection: AdoptedConnection): boolean => {
    const copy = duplicate(connection.fd)
    if (copy !== undefined) this.idle = [...this.idle, { ...connection, place, fd: copy }]
    return copy !== undefined
  }

  readonly mayAccept = Deferred.await(this.accepting)
  readonly accepts = (): boolean => Deferred.isDoneUnsafe(this.accepting)
  /** Lets the waiting listeners accept. */
  readonly letAccept = Effect.asVoid(Deferred.succeed(this.accepting, undefined))

  readonly isLeaving = (): boolean => this.leaving
  /** From now on, until `stay`, a stop leaves everything open. */
  readonly leave = (): void => {
    this.leaving = true
  }
  readonly stay = (): void => {
    this.leaving = false
  }

  readonly listeners = (): ReadonlyArray<KeptListener> => [...this.held.values()]
  readonly connections = (): ReadonlyArray<KeptConnection> => this.idle

  /** Closes the listeners and connections that no server adopted, and removes their files; returns their places. */
  readonly closeUnadopted = (): ReadonlyArray<Place> => {
    const places = [...this.unadopted]
    for (const place of places) {
      const kept = this.closeListener(place)
      if (kept?.inode !== undefined) removeOwnFile(place.slice(place.indexOf(" ") + 1), kept.inode)
      if (kept?.spec !== undefined) removeWritten(kept.spec)
      for (const { fd } of this.takeConnections(place)) Fs.closeSync(fd)
    }
    return places
  }

  readonly close = (): void => {
    for (const place of this.places()) this.closeListener(place)
    for (const { fd } of this.idle) Fs.closeSync(fd)
    this.idle = []
  }

  private closeListener(place: Place): KeptListener | undefined {
    const kept = this.held.get(place)
    this.held.delete(place)
    this.unadopted.delete(place)
    if (kept !== undefined) Fs.closeSync(kept.fd)
    return kept
  }
}

const duplicate = (fd: number): number | undefined => {
  const copy = libc().duplicate(fd)
  return copy < 0 ? undefined : copy
}
