/** Whether a port of a container takes connections. */
import * as Net from "node:net"
import { Effect } from "effect"
import type { Endpoint } from "../../src/protocol/PortBinding.ts"

export type PortProbe = (endpoint: Endpoint) => Effect.Effect<boolean>

/** An address that is not there yet does not answer at all. */
const patienceMillis = 500

/** Connects, and closes the connection at once. */
export const acceptsTcp: PortProbe = ({ address, port }) =>
  Effect.callback((resume) => {
    const socket = Net.connect({ host: address.text, port, timeout: patienceMillis })
    const answer = (accepts: boolean) => {
      socket.destroy()
      resume(Effect.succeed(accepts))
    }
    socket.once("connect", () => answer(true))
    socket.on("error", () => answer(false))
    socket.once("timeout", () => answer(false))
    return Effect.sync(() => socket.destroy())
  })
