/** Clients that ask and do not read, and what is expected of whoever they ask. */
import * as Net from "node:net"
import type { ListedMapping } from "../../src/protocol/Driver.ts"

/** A list that is answered by nearly a megabyte. */
export const manyListed: ReadonlyArray<ListedMapping> = Array.from({ length: 4000 }, (_, index) => ({
  protocol: 6,
  frontendIp: "0.0.0.0",
  frontendPort: 20_000 + index,
  backendIp: "172.17.0.2",
  backendPort: 80,
  mode: "nat",
  owner: "engine",
  state: "live",
  sinceMillis: 0,
  labels: new Map(),
  connections: 0,
  bytesIn: 0,
  bytesOut: 0
}))

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
