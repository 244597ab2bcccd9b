/** What an HTTP server takes of its connections: which of them at all, and one request at a time of each. */
import type * as Http from "node:http"
import type * as Net from "node:net"

/** Closes the connections that are not admitted before anybody reads from them. */
export const closeOthers = (server: Net.Server, admits: (socket: Net.Socket) => boolean): void => {
  const listeners = server.listeners("connection")
  server.removeAllListeners("connection").on("connection", (socket: Net.Socket) => {
    if (admits(socket)) for (const listener of listeners) listener.call(server, socket)
    else socket.destroy()
  })
}

/** What may wait of one connection behind its request in flight; no plugin's client sends so much ahead. */
const maxPipelined = 16

/**
 * One request of a connection at a time, the next once the answer was read: a client that asks and does not read makes
 * nothing but its own answers wait. `begun` and `done` are called for each that is listened to.
 */
export const oneByOne = (
  listener: Http.RequestListener,
  begun: () => void,
  done: () => void
): Http.RequestListener => {
  const waiting = new WeakMap<Net.Socket, Array<() => void>>()
  const next = (socket: Net.Socket): void => {
    const run = socket.destroyed ? undefined : waiting.get(socket)?.shift()
    if (run === undefined) waiting.delete(socket)
    else run()
  }
  return (request, response) => {
    const { socket } = request
    if (socket.destroyed) return
    const run = () => {
      begun()
      response.once("close", () => {
        // In this order, so that a stop waits for those that were read already.
        next(socket)
        done()
      })
      listener(request, response)
    }
    const others = waiting.get(socket)
    if (others === undefined) {
      waiting.set(socket, [])
      run()
    } else if (others.push(run) > maxPipelined) socket.destroy()
  }
}
