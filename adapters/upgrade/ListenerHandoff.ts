/**
 * Listening sockets and idle connections that outlive their server: a successor takes them over, so that clients that
 * connect meanwhile wait instead of being refused, and no connection is closed just as a request arrives on it.
 */
import * as Net from "node:net"
import { Effect, type Scope } from "effect"
import type { WrittenFile } from "../node/WrittenFile.ts"

/** `unix PATH`, `tcp HOST:PORT` as requested, or `systemd NUMBER NAME`. */
export type Place = string

/** The details of a socket that its place does not contain. */
export interface Details {
  /** The inode of a Unix socket's file: one with another inode is not ours. */
  readonly inode?: number
  /** The port of a TCP socket. */
  readonly port?: number
  /** The spec file written for it. */
  readonly spec?: WrittenFile
}

export interface AdoptedListener extends Details {
  /** Owned by the caller from now on. */
  readonly fd: number
}

export interface AdoptedConnection {
  /** Owned by the caller from now on. */
  readonly fd: number
  /** The owner of what its client maps, if the client is a session. */
  readonly session?: string
}

/** Keeps descriptors by place; knows nothing of servers. */
export interface ListenerHandoff {
  /** The places of all kept listening sockets. */
  readonly places: () => ReadonlyArray<Place>
  /** The listening socket that is kept for a place, if any. */
  readonly adopt: (place: Place) => AdoptedListener | undefined
  /** Keeps a duplicate of this socket's descriptor, which the caller still owns; `false` if duplicating fails. */
  readonly keep: (place: Place, fd: number, details: Details) => boolean
  /** Adds details of a kept socket that become known later. */
  readonly describe: (place: Place, details: Details) => void
  /** The connections kept for a place; each is returned once. */
  readonly takeConnections: (place: Place) => ReadonlyArray<AdoptedConnection>
  /**
   * Keeps a duplicate of this connection's descriptor; the caller closes its own without reading anything more.
   * `false` if duplicating fails.
   */
  readonly keepConnection: (place: Place, connection: AdoptedConnection) => boolean
  /** Returns once adopted sockets may accept: the previous process no longer does. */
  readonly mayAccept: Effect.Effect<void>
  /** Whether they may accept already. */
  readonly accepts: () => boolean
  /** Whether the current stop is for a successor. */
  readonly isLeaving: () => boolean
}

/**
 * Listens on the socket kept for the place, once it may accept. If none was kept, `bind` listens at once, and that
 * socket is kept for the next server.
 */
export const listenKept = <E, R>(
  server: Net.Server,
  place: Place,
  handoff: ListenerHandoff,
  kept: AdoptedListener | undefined,
  bind: Effect.Effect<Details, E, R>
): Effect.Effect<void, E, R | Scope.Scope> =>
  Effect.gen(function* () {
    if (kept !== undefined)
      return yield* once(handoff, () => {
        server.listen({ fd: kept.fd, backlog: 1024 })
        takeUpConnections(server, place, handoff)
      })
    const details = yield* bind
    const fd = descriptorOf(server)
    if (fd !== undefined) handoff.keep(place, fd, details)
  })

/** Serves the connections kept for a place, once they may be read. */
export const goOnWithConnections = (
  server: Net.Server,
  place: Place,
  handoff: ListenerHandoff
): Effect.Effect<void, never, Scope.Scope> => once(handoff, () => takeUpConnections(server, place, handoff))

const takeUpConnections = (server: Net.Server, place: Place, handoff: ListenerHandoff): void => {
  for (const { fd, session } of handoff.takeConnections(place))
    server.emit("connection", new Net.Socket({ fd, allowHalfOpen: true }), session)
}

const once = ({ mayAccept }: ListenerHandoff, act: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.forkScoped(Effect.andThen(mayAccept, Effect.sync(act))))

/** Passes an idle connection to the handoff, for a successor; ends it if that is not possible. */
export const leaveConnection = (
  socket: Net.Socket,
  place: Place,
  handoff: ListenerHandoff,
  sessions: Sessions
): void => {
  const fd = descriptorOf(socket)
  if (fd === undefined || socket.writableLength > 0) return void socket.end()
  const session = sessions.of(socket)
  if (handoff.keepConnection(place, { fd, ...(session === undefined ? {} : { session }) }))
    sessions.leave(socket)
  socket.destroy()
}

/** The sessions of a server's connections. */
interface Sessions {
  readonly of: (connection: Net.Socket) => string | undefined
  /** A successor gets this connection, and with it the session. */
  readonly leave: (connection: Net.Socket) => void
}

/** Node exposes it on `_handle`, the property by which `server.listen(handle)` itself accepts such objects. */
const descriptorOf = (holder: object): number | undefined => {
  const { _handle: handle } = holder as { readonly _handle?: { readonly fd?: number } | null }
  const fd = handle?.fd
  return fd !== undefined && fd >= 0 ? fd : undefined
}
