/**
 * Sends raw bytes to a plugin's socket. Whatever they are, the plugin must answer the next request and hold nothing
 * more.
 */
import * as Net from "node:net"

/**
 * Sends one input over its own connection; resolves with the bytes received once either side closed. The plugin would
 * wait for the rest of a truncated request, so our side closes at the end of the bytes.
 */
export const sendBytes = (address: Net.NetConnectOpts, bytes: Uint8Array, millis = 60_000): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = Net.connect(address)
    let text = ""
    const timer = setTimeout(() => {
      socket.destroy()
      reject(
        new Error(`no end within ${millis} ms: ${JSON.stringify(Buffer.from(bytes).toString("latin1"))}`)
      )
    }, millis)
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1")
    })
    // The plugin may close before it has read everything; that end is as good as any.
    socket.on("error", () => {})
    socket.on("close", () => {
      clearTimeout(timer)
      resolve(text)
    })
    socket.end(bytes)
  })
