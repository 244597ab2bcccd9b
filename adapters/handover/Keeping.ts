/** The plugin's listening sockets and idle connections, held by this process for whoever serves next: itself, or a successor. */
import * as Fs from "node:fs"
import { Deferred, Effect, type Scope } from "effect"
import type { Details, Keeper, Place } from "../docker/Keeper.ts"
import { removeSpec } from "../docker/SpecFile.ts"
import { libc } from "../linux/Libc.ts"
import type { Estate, KeptConnection, KeptListener } from "./Estate.ts"

export interface Keeping extends Keeper {
  /** From now on a stop leaves all of it open; until `stay`. */
  readonly leave: () => void
  readonly stay: () => void
  /** Lets those accept who wait for it. */
  readonly letAccept: Effect.Effect<void>
  readonly listeners: () => ReadonlyArray<KeptListener>
  readonly connections: () => ReadonlyArray<KeptConnection>
  /** Closes what was taken over for places where nobody listens, files and connections included; answers the places. */
  readonly closeUnadopted: () => ReadonlyArray<Place>
  readonly close: () => void
}

/** With what was taken over, if anything was. All that is kept is closed with the scope. */
export const makeKeeping = (
  inherited: Pick<Estate, "listeners" | "connections"> | undefined
): Effect.Effect<Keeping, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Deferred.make<void>(), (accepting) => keepingOf(inherited, accepting)),
    (keeping) => Effect.sync(keeping.close)
  )

const keepingOf = (
  inherited: Pick<Estate, "listeners" | "connections"> | undefined,
  accepting: Deferred.Deferred<void>
): Keeping => {
  const listeners = new Map(inherited?.listeners.map((listener) => [listener.place, listener]))
  let connections = [...(inherited?.connections ?? [])]
  const unadopted = new Set(listeners.keys())
  let leaving = false

  const duplicate = (fd: number): number | undefined => {
    const copy = libc().duplicate(fd)
    return copy < 0 ? undefined : copy
  }
  const closeListener = (place: Place) => {
    const kept = listeners.get(place)
    listeners.delete(place)
    unadopted.delete(place)
    if (kept !== undefined) Fs.closeSync(kept.fd)
    return kept
  }

  const takeConnections = (place: Place): ReadonlyArray<number> => {
    const taken = connections.filter((connection) => connection.place === place)
    connections = connections.filter((connection) => connection.place !== place)
    return taken.map(({ fd }) => fd)
  }

  return {
    places: () => [...listeners.keys()],
    adopt: (place) => {
      const kept = listeners.get(place)
      const fd = kept === undefined ? undefined : duplicate(kept.fd)
      if (kept === undefined || fd === undefined) return undefined
      unadopted.delete(place)
      return { ...kept, fd }
    },
    keep: (place, fd, details: Details) => {
      closeListener(place)
      const copy = duplicate(fd)
      if (copy !== undefined) listeners.set(place, { ...details, place, fd: copy })
      return copy !== undefined
    },
    describe: (place, details) => {
      const kept = listeners.get(place)
      if (kept !== undefined) listeners.set(place, { ...kept, ...details })
    },
    takeConnections,
    keepConnection: (place, fd) => {
      const copy = duplicate(fd)
      if (copy !== undefined) connections.push({ place, fd: copy })
    },
    mayAccept: Deferred.await(accepting),
    accepts: () => Deferred.isDoneUnsafe(accepting),
    isLeaving: () => leaving,
    leave: () => {
      leaving = true
    },
    stay: () => {
      leaving = false
    },
    letAccept: Effect.asVoid(Deferred.succeed(accepting, undefined)),
    listeners: () => [...listeners.values()],
    connections: () => connections,
    closeUnadopted: () => {
      const places = [...unadopted]
      for (const place of places) {
        const kept = closeListener(place)
        if (kept?.inode !== undefined) removeFile(place, kept.inode)
        if (kept?.spec !== undefined) removeSpec(kept.spec)
        for (const fd of takeConnections(place)) Fs.closeSync(fd)
      }
      return places
    },
    close: () => {
      for (const place of [...listeners.keys()]) closeListener(place)
      for (const { fd } of connections.splice(0)) Fs.closeSync(fd)
    }
  }
}

/** Of `unix PATH`, if it is still that one. */
const removeFile = (place: Place, inode: number): void => {
  const path = place.slice(place.indexOf(" ") + 1)
  if (Fs.lstatSync(path, { throwIfNoEntry: false })?.ino === inode) Fs.rmSync(path, { force: true })
}
