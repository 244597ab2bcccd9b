/** A running plugin as a driver: what this process is asked, the plugin is asked, in the name of the same owner. */
import { Effect, Layer } from "effect"
import { Driver, type DriverError } from "../../src/protocol/Driver.ts"
import { MethodNotFound } from "../../src/protocol/Operations.ts"
import type { ClientError } from "./ClientError.ts"
import { socketAddress } from "./PluginAddress.ts"
import { makeClient } from "./PluginClient.ts"

/**
 * The plugin on a Unix socket. An answer lost on its way is undone by the plugin; one that this process can't deliver is
 * not, since the plugin has delivered it here.
 */
export const layerDriver = (socketPath: string) =>
  Layer.effect(
    Driver,
    Effect.map(makeClient(socketAddress(socketPath)), (client) =>
      Driver.of({
        mapPorts: client.mapPorts,
        // Not one after the other: those before the one that is refused would stay.
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
