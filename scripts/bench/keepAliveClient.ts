/**
 * A keep-alive HTTP client with the least overhead: one Unix connection, one request at a time, answers delimited
 * by their Content-Length. A benchmark with it measures the server.
 */
import * as Net from "node:net"

export interface KeepAliveClient {
  /** Posts a body and returns that of the response; fails unless the status is 200. */
  readonly post: (path: string, body: string) => Promise<string>
  readonly close: () => void
}

export const connect = (socketPath: string): Promise<KeepAliveClient> =>
  new Promise((resolve, reject) => {
    const socket = Net.connect(socketPath)
    let received = Buffer.alloc(0)
    let waiting:
      | { readonly done: (body: string) => void; readonly failed: (error: Error) => void }
      | undefined

    socket.on("data", (chunk) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const end = received.indexOf("\r\n\r\n")
      if (end === -1) return
      const head = received.toString("latin1", 0, end)
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (received.length < end + 4 + length) return
      const body = received.toString("utf8", end + 4, end + 4 + length)
      received = Buffer.alloc(0)
      const { done, failed } = waiting ?? {}
      waiting = undefined
      if (head.startsWith("HTTP/1.1 200 ")) done?.(body)
      else failed?.(new Error(body))
    })
    socket.once("error", (error) => (waiting === undefined ? reject(error) : waiting.failed(error)))
    socket.once("connect", () =>
      resolve({
        post: (path, body) =>
          new Promise((done, failed) => {
            waiting = { done, failed }
            socket.write(
              `POST ${path} HTTP/1.1\r\nHost: plugin.moby.localhost\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: ${Buffer.byteLength(body)}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n${body}`
            )
          }),
        close: () => socket.destroy()
      })
    )
  })
