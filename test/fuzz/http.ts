/** Bytes sent to a plugin's socket as they are. Whatever they were, the plugin answers the next one and holds nothing more. */
import * as Net from "node:net"

/**
 * Sends one input over a connection of its own; resolves with what came back once the plugin or we closed. A request cut
 * short would be waited for, so our side is closed at the end of the bytes.
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
    // The plugin may close before all is read: that is an end like any other.
    socket.on("error", () => {})
    socket.on("close", () => {
      clearTimeout(timer)
      resolve(text)
    })
    socket.end(bytes)
  })
