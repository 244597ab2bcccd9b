/**
 * Listening sockets that outlive the server on them, and idle connections that do: a successor goes on with them, so that
 * whoever connects meanwhile waits instead of being refused, and nobody's connection is closed at a request's arrival.
 */
import * as Net from "node:net"
import { Effect, type Scope } from "effect"
import type { SpecFile } from "../docker/SpecFile.ts"

/** `unix PATH`, `tcp HOST:PORT` as asked for, or `systemd NUMBER NAME`. */
export type Place = string

/** What a place does not say of its socket. */
export interface Details {
  /** Of a Unix socket's file: one with another inode is somebody else's. */
  readonly inode?: number
  /** Of a TCP socket. */
  readonly port?: number
  /** What describes it to an Engine, as it was written. */
  readonly spec?: SpecFile
}

export interface Kept extends Details {
  /** The caller's own from now on. */
  readonly fd: number
}

/** Knows nothing of servers: it holds descriptors, by place. */
export interface ListenerHandoff {
  /** Of every listening socket that is kept. */
  readonly places: () => ReadonlyArray<Place>
  /** What is kept for a place, to be listened on. */
  readonly adopt: (place: Place) => Kept | undefined
  /** Keeps another descriptor of this listening socket, which stays the caller's; `false` where there is none to be had. */
  readonly keep: (place: Place, fd: number, details: Details) => boolean
  /** What is known of a kept socket only later. */
  readonly describe: (place: Place, details: Details) => void
  /** The connections kept for a place, each for one taker. */
  readonly takeConnections: (place: Place) => ReadonlyArray<number>
  /** Keeps another descriptor of this connection, which the caller closes without having read anything more. */
  readonly keepConnection: (place: Place, fd: number) => void
  /** Returns once what was adopted may be accepted from: its last holder does not any more. */
  readonly mayAccept: Effect.Effect<void>
  /** Whether that is so already. */
  readonly accepts: () => boolean
  /** Whether the stop that is under way is for a successor's sake. */
  readonly isLeaving: () => boolean
}

/**
 * Listens on what was kept for the place, as soon as that may be; where nothing was, `bind` does it at once, and that is
 * kept for the next.
 */
export const listenKept = <E, R>(
  server: Net.Server,
  place: Place,
  handoff: ListenerHandoff,
  kept: Kept | undefined,
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

/** Goes on with the connections that were kept for a place, as soon as that may be. */
export const goOnWithConnections = (
  server: Net.Server,
  place: Place,
  handoff: ListenerHandoff
): Effect.Effect<void, never, Scope.Scope> => once(handoff, () => takeUpConnections(server, place, handoff))

const takeUpConnections = (server: Net.Server, place: Place, handoff: ListenerHandoff): void => {
  for (const fd of handoff.takeConnections(place))
    server.emit("connection", new Net.Socket({ fd, allowHalfOpen: true }))
}

const once = ({ mayAccept }: ListenerHandoff, act: () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.forkScoped(Effect.andThen(mayAccept, Effect.sync(act))))

/** Lets go of an idle connection so that a successor can go on with it; ends it where that can't be. */
export const leaveConnection = (socket: Net.Socket, place: Place, handoff: ListenerHandoff): void => {
  const fd = descriptorOf(socket)
  if (fd === undefined || socket.writableLength > 0) return void socket.end()
  handoff.keepConnection(place, fd)
  socket.destroy()
}

/** Node tells it of what has a `_handle`, by which it takes such objects itself (`server.listen(handle)`). */
const descriptorOf = (holder: object): number | undefined => {
  const { _handle: handle } = holder as { readonly _handle?: { readonly fd?: number } | null }
  const fd = handle?.fd
  return fd !== undefined && fd >= 0 ? fd : undefined
}
