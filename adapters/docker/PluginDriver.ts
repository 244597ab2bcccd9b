/** A running plugin as a driver: forwards each call to the plugin, for the same owner. */
import { Effect, Layer } from "effect"
import { Driver, type DriverError } from "../../src/protocol/Driver.ts"
import { MethodNotFound } from "../../src/protocol/Operations.ts"
import type { ClientError } from "./ClientError.ts"
import { socketAddress } from "./PluginAddress.ts"
import { makeClient } from "./PluginClient.ts"

/**
 * The plugin on a Unix socket. The plugin undoes a call whose answer it can't deliver to this process. It doesn't
 * undo one whose answer this process then fails to deliver, since for the plugin it was delivered.
 */
export const layerDriver = (socketPath: string) =>
  Layer.effect(
    Driver,
    Effect.map(makeClient(socketAddress(socketPath)), (client) =>
      Driver.of({
        mapPorts: client.mapPorts,
        // Not one by one: the groups before a refused one would stay mapped.
        mapGroups: (groups) =>
          Effect.mapError(client.mapTogether(groups), (error) => ({
            group: undefined,
            error: notOffered(error)
          })),
        unmapPorts: client.unmapPorts,
        listPorts: Effect.mapError(client.listPorts, notOffered)
      })
    )
  )

const notOffered = (error: ClientError): DriverError =>
  error._tag === "NotOffered" ? new MethodNotFound({ method: error.method }) : error
