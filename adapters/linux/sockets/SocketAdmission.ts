/**
 * Which packets a socket admits, by a socket filter. On kernels that let only CAP_NET_ADMIN filter a TCP socket,
 * one other way blocks everything: a minimum TTL that no packet has unless its sender meant to reach such a socket
 * (IP_MINTTL, ip(7); IPV6_MINHOPCOUNT, ipv6(7)).
 */
import type { Admission, HostSocket } from "../../../src/ports/HostSockets.ts"
import {
  ENOENT,
  EPERM,
  hostLittleEndian,
  IP_MINTTL,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_MINHOPCOUNT,
  type Libc,
  SO_DETACH_FILTER,
  SOL_SOCKET
} from "../Libc.ts"
import { admitLocal, dropAll, makeFilter } from "./SocketFilter.ts"

export interface SocketAdmission {
  /** The result is 0 or a negated `errno`. */
  readonly set: (socket: HostSocket, admission: Admission) => number
  readonly close: () => void
}

export const makeAdmission = (libc: Libc): SocketAdmission => {
  const filters = { nothing: makeFilter(libc, dropAll), loopback: makeFilter(libc, admitLocal) }

  const setLeastTtl = ({ fd, host }: HostSocket, ttl: Uint8Array): number =>
    host.family === 4
      ? libc.setsockopt(fd, IPPROTO_IP, IP_MINTTL, ttl, 4)
      : libc.setsockopt(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, ttl, 4)

  const admitEverything = (socket: HostSocket): number => {
    const result = libc.setsockopt(socket.fd, SOL_SOCKET, SO_DETACH_FILTER, noTtl, 4)
    if (result !== -ENOENT) return result
    return socket.protocol === "tcp" ? setLeastTtl(socket, noTtl) : 0
  }

  return {
    set: (socket, admission) => {
      if (admission === "everything") return admitEverything(socket)
      const result = filters[admission].attach(socket.fd)
      return result === -EPERM && admission === "nothing" && socket.protocol === "tcp"
        ? setLeastTtl(socket, highestTtl)
        : result
    },
    close: () => {
      filters.nothing.close()
      filters.loopback.close()
    }
  }
}

const int = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setInt32(0, value, hostLittleEndian)
  return bytes
}

const noTtl = int(0)
const highestTtl = int(255)
