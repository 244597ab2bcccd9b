/**
 * The sessions among a server's clients: what a session maps is released when its last connection closes. Which
 * mappings these are says their owner, so a session survives a takeover with its connections.
 */
import { randomBytes } from "node:crypto"
import type * as Net from "node:net"
import { Context, Effect, Fiber } from "effect"
import { Driver, isSession } from "../../src/protocol/Driver.ts"
import { releaseAll } from "../../src/protocol/ReleaseAll.ts"

export type ConnectionSessions = ReturnType<typeof connectionSessions>

/** How often a client that vanished without a word is looked for. */
const keepAliveMillis = 30_000

export const connectionSessions = (services: Context.Context<Driver>) => {
  const named = new WeakMap<Net.Socket, string>()
  const open = new Map<string, Set<Net.Socket>>()
  const releases = new Set<Fiber.Fiber<void>>()

  const release = (session: string): void => {
    open.delete(session)
    const fiber = Effect.runForkWith(services)(releaseSession(Context.get(services, Driver), session))
    releases.add(fiber)
    fiber.addObserver(() => void releases.delete(fiber))
  }

  const adopt = (connection: Net.Socket, session: string): void => {
    named.set(connection, session)
    const connections = open.get(session) ?? new Set()
    open.set(session, connections.add(connection))
    connection.setKeepAlive(true, keepAliveMillis)
    connection.once("close", () => {
      if (connections.delete(connection) && connections.size === 0 && open.get(session) === connections)
        release(session)
    })
  }

  return {
    /**
     * The owner of a call on this connection. A session is named here unless it names itself (`session:NAME`), and a
     * connection belongs to the first session that calls on it.
     */
    ownerOf: (owner: string, connection: Net.Socket) => {
      if (!isSession(owner)) return owner
      const known = named.get(connection)
      if (known !== undefined) return known
      const session = owner === "session" ? `session:${randomBytes(6).toString("hex")}` : owner
      // The answer to a client that is gone is lost, which undoes the call.
      if (!connection.destroyed) adopt(connection, session)
      return session
    },
    /** The session that a connection belongs to, if any. */
    of: (connection: Net.Socket) => named.get(connection),
    /** A predecessor passed on this connection of a session. */
    adopt,
    /** A successor gets this connection, and with it the session. */
    leave: (connection: Net.Socket) => {
      const session = named.get(connection)
      if (session !== undefined) open.delete(session)
    },
    /** Ends all sessions; returns when what they mapped is released. */
    end: Effect.suspend(() => {
      for (const session of [...open.keys()]) release(session)
      return Effect.asVoid(Fiber.awaitAll([...releases]))
    })
  }
}

/** Releases what a session mapped; a failure is logged. */
export const releaseSession = (driver: Driver["Service"], session: string): Effect.Effect<void> =>
  Effect.catch(Effect.asVoid(releaseAll(driver, session)), (error) =>
    Effect.logError(`releasing what ${session} mapped failed: ${error.message}`)
  )
