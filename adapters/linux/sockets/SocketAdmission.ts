/**
 * Which packets a socket admits, by a socket filter. On kernels that let only CAP_NET_ADMIN filter a TCP socket,
 * one other way blocks everything: a minimum TTL that no packet has unless its sender meant to reach such a socket
 * (IP_MINTTL, ip(7); IPV6_MINHOPCOUNT, ipv6(7)).
 */

import type { Admission, HostSocket } from "../../../src/ports/HostSockets.ts"
import type { Address, Family } from "../../../src/protocol/Address.ts"
import {
  ENOENT,
  EPERM,
  IP_MINTTL,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_MINHOPCOUNT,
  int32,
  type Libc,
  SO_DETACH_FILTER,
  SOL_SOCKET
} from "../Libc.ts"
import { admitLocal, compile, dropAll, makeFilter, type Program, type SocketFilter } from "./SocketFilter.ts"

export type SocketAdmission = ReturnType<typeof makeAdmission>

/** Most containers have fewer ports: nothing is loaded for them. */
const copies = 4

/** A filter of `loopback` admission, kept while sockets use it: those of a container's ports have the same. */
interface Used {
  readonly key: string
  readonly filter: SocketFilter
  users: number
}

export const makeAdmission = (libc: Libc) => {
  const nothing = makeFilter(libc, compile(libc, dropAll), 0)
  const programs = new Map<string, Program>()
  /** By family and backends. */
  const local = new Map<string, Used>()
  const usedBy = new Map<HostSocket, Used>()

  const programOf = (family: Family, backends: number): Program => {
    const key = `${family} ${backends}`
    const program = programs.get(key) ?? compile(libc, admitLocal(family, backends))
    programs.set(key, program)
    return program
  }

  const localFor = ({ host: { family } }: HostSocket, backends: ReadonlyArray<Address>): Used => {
    const own = backends.filter((backend) => backend.family === family)
    const key = [family, ...own.map((backend) => backend.key)].join(" ")
    const known = local.get(key)
    if (known !== undefined) return known
    const made = { key, filter: makeFilter(libc, programOf(family, own.length), copies, own), users: 0 }
    local.set(key, made)
    return made
  }

  const release = (used: Used) => {
    if (--used.users > 0) return
    local.delete(used.key)
    used.filter.close()
  }

  const forget = (socket: HostSocket) => {
    const used = usedBy.get(socket)
    if (used === undefined) return
    usedBy.delete(socket)
    release(used)
  }

  const admitLocally = (socket: HostSocket, backends: ReadonlyArray<Address>): number => {
    const used = localFor(socket, backends)
    used.users++
    const result = used.filter.attach(socket.fd)
    if (result < 0) {
      release(used)
      return result
    }
    forget(socket)
    usedBy.set(socket, used)
    return result
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

  const admitNothing = (socket: HostSocket): number => {
    const result = nothing.attach(socket.fd)
    return result === -EPERM && socket.protocol === "tcp" ? setLeastTtl(socket, highestTtl) : result
  }

  return {
    /** See `HostSockets.admit`. The result is 0 or a negated `errno`. */
    set: (socket: HostSocket, admission: Admission, backends: ReadonlyArray<Address>) => {
      if (admission === "loopback") return admitLocally(socket, backends)
      const result = admission === "everything" ? admitEverything(socket) : admitNothing(socket)
      if (result >= 0) forget(socket)
      return result
    },
    /** The socket is closed, or about to be. */
    forget,
    close: () => {
      nothing.close()
      for (const { filter } of local.values()) filter.close()
    }
  }
}

const noTtl = int32(0)
const highestTtl = int32(255)
