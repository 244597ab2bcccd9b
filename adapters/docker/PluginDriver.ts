/** A running plugin as a driver: forwards each call to the plugin, for the same owner. */
import { Context, Deferred, Effect, Layer, Schema } from "effect"
import { Driver, type DriverError } from "../../src/protocol/Driver.ts"
import { MethodNotFound } from "../../src/protocol/Operations.ts"
import type { ClientError } from "./ClientError.ts"
import { socketAddress } from "./PluginAddress.ts"
import { makeClient } from "./PluginClient.ts"

/** The plugin closed the connection of a session that had mapped something. */
export class SessionLost extends Schema.TaggedError<SessionLost>()("SessionLost", {
  socket: Schema.String
}) {
  override get message(): string {
    return `the plugin at ${this.socket} closed the connection, and with it this session`
  }
}

/** The connection to a plugin that a session depends on. */
export class PluginConnection extends Context.Service<
  PluginConnection,
  {
    /** Fails once the connection is closed, if anything was mapped on it. */
    readonly lost: Effect.Effect<never, SessionLost>
  }
>()("portmapper/docker/PluginConnection") {}

/**
 * The plugin on a Unix socket, over one connection, since the mappings of a session end with theirs. The plugin
 * undoes a call whose answer it can't deliver to this process. It doesn't undo one whose answer this process then
 * fails to deliver, since for the plugin it was delivered.
 */
export const layerDriver = (socketPath: string) =>
  Layer.effectContext(
    Effect.gen(function* () {
      const lost = yield* Deferred.make<never, SessionLost>()
      let hasMapped = false
      const client = yield* makeClient(socketAddress(socketPath), {
        connections: 1,
        onClosed: () => {
          if (hasMapped) Deferred.doneUnsafe(lost, Effect.fail(new SessionLost({ socket: socketPath })))
        }
      })
      const mapping = Effect.tap(
        Effect.sync(() => {
          hasMapped = true
        })
      )
      const driver = Driver.of({
        mapPorts: (group) => mapping(client.mapPorts(group)),
        // Not one by one: the groups before a refused one would stay mapped.
        mapGroups: (groups) =>
          Effect.mapError(mapping(client.mapTogether(groups)), (error) => ({
            group: undefined,
            error: notOffered(error)
          })),
        unmapPorts: client.unmapPorts,
        drain: (request) => Effect.mapError(client.drain(request), notOffered),
        listPorts: Effect.mapError(client.listPorts, notOffered)
      })
      return Context.make(Driver, driver).pipe(Context.add(PluginConnection, { lost: Deferred.await(lost) }))
    })
  )

const notOffered = (error: ClientError): DriverError =>
  error._tag === "NotOffered" ? new MethodNotFound({ method: error.method }) : error
