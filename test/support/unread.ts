/** Clients that send requests and do not read, and what a server must do. */
import * as Net from "node:net"
import { listedMapping } from "./mappings.ts"

/** A list whose answer takes nearly a megabyte. */
export const manyListed = Array.from({ length: 4000 }, (_, index) =>
  listedMapping({ frontendPort: 20_000 + index, connections: 0, bytesIn: 0, bytesOut: 0 })
)

export interface UnreadClient {
  readonly socket: Net.Socket
  /** Resolves once the other side has closed. */
  readonly closed: Promise<void>
}

/** Requests the list of all mappings so many times, in one go, and reads nothing. */
export const askUnread = (where: Net.NetConnectOpts, times: number): UnreadClient => {
  const socket = Net.connect(where).pause()
  const closed = new Promise<void>((resolve) => socket.on("error", () => {}).once("close", () => resolve()))
  socket.write(listRequest.repeat(times))
  return { socket, closed }
}

const listRequest = "POST /PortMapper.ListPorts HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"

/** A batch of JSON-RPC whose answers take more than a hundred times its own length. */
export const wideBatch = (bytes: number): string =>
  `[${Array(Math.floor(bytes / 2) - 1)
    .fill("1")
    .join(",")}]`
