/**
 * Which packets a socket admits, by a socket filter. On kernels that let only CAP_NET_ADMIN filter a TCP socket,
 * one other way blocks everything: a minimum TTL that no packet has unless its sender meant to reach such a socket
 * (IP_MINTTL, ip(7); IPV6_MINHOPCOUNT, ipv6(7)).
 */

import type { Admission, HostSocket } from "../../../src/ports/HostSockets.ts"
import type { Address } from "../../../src/protocol/Address.ts"
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
import { admitLocal, dropAll, makeFilter, type SocketFilter } from "./SocketFilter.ts"

export interface SocketAdmission {
  /** See `HostSockets.admit`. The result is 0 or a negated `errno`. */
  readonly set: (socket: HostSocket, admission: Admission, backends: ReadonlyArray<Address>) => number
  readonly close: () => void
}

/** Sockets keep a filter that is not remembered any more; another socket gets a new one. */
const rememberedFilters = 64

export const makeAdmission = (libc: Libc): SocketAdmission => {
  const nothing = makeFilter(libc, dropAll)
  /** By family and backends, the one used last at the end; those of a container's ports are the same. */
  const local = new Map<string, SocketFilter>()

  const filterOf = ({ host: { family } }: HostSocket, backends: ReadonlyArray<Address>): SocketFilter => {
    const own = backends.filter((backend) => backend.family === family)
    const key = [family, ...own.map((backend) => backend.key)].join(" ")
    const filter = local.get(key) ?? makeFilter(libc, admitLocal(family, own))
    local.delete(key)
    local.set(key, filter)
    if (local.size > rememberedFilters)
      for (const [oldest, { close }] of local) {
        close()
        local.delete(oldest)
        break
      }
    return filter
  }

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
    set: (socket, admission, backends) => {
      if (admission === "everything") return admitEverything(socket)
      const filter = admission === "nothing" ? nothing : filterOf(socket, backends)
      const result = filter.attach(socket.fd)
      return result === -EPERM && admission === "nothing" && socket.protocol === "tcp"
        ? setLeastTtl(socket, highestTtl)
        : result
    },
    close: () => {
      nothing.close()
      for (const { close } of local.values()) close()
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
