/** Limits on an HTTP server's connections: which are admitted, and one request at a time on each. */
import type * as Http from "node:http"
import type * as Net from "node:net"

/** Closes connections that are not admitted, before the server reads from them. */
export const closeOthers = (server: Net.Server, admits: (socket: Net.Socket) => boolean): void => {
  const listeners = server.listeners("connection")
  server.removeAllListeners("connection").on("connection", (socket: Net.Socket) => {
    if (admits(socket)) for (const listener of listeners) listener.call(server, socket)
    else socket.destroy()
  })
}

/** How many requests of one connection may wait behind the one in flight; no plugin client pipelines that many. */
const maxPipelined = 16

/**
 * Runs one request of a connection at a time, and the next once the client has read the answer: a client that sends
 * and does not read delays only itself. `begun` and `done` are called for each request that is handled.
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
        // In this order, so that a stop waits for requests that were already read.
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
