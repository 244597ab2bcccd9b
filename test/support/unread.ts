/** Clients that ask and do not read, and what is expected of whoever they ask. */
import * as Net from "node:net"

export interface UnreadClient {
  readonly socket: Net.Socket
  /** Resolves once the other side has closed. */
  readonly closed: Promise<void>
}

/** Asks so many times for the list of all mappings, in one go, and reads nothing. */
export const askUnread = (where: Net.NetConnectOpts, times: number): UnreadClient => {
  const socket = Net.connect(where).pause()
  const closed = new Promise<void>((resolve) => socket.on("error", () => {}).once("close", () => resolve()))
  socket.write(listRequest.repeat(times))
  return { socket, closed }
}

const listRequest = "POST /PortMapper.ListPorts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"

/** A batch of JSON-RPC that is answered by more than a hundred times its own length where each part is. */
export const wideBatch = (bytes: number): string =>
  `[${Array(Math.floor(bytes / 2) - 1)
    .fill("1")
    .join(",")}]`
