/**
 * `HostSockets` on Linux: ip(7), ipv6(7), tcp(7), udp(7), sctp(7). It binds sockets through the C library, so that
 * an idle port needs no event loop handle, and blocks all packets of a socket before it binds it.
 */
import { Effect, Layer, Result } from "effect"
import { AdoptedSockets } from "../../../src/ports/AdoptedSockets.ts"
import { type HostSocket, HostSockets, SocketError } from "../../../src/ports/HostSockets.ts"
import type { Address } from "../../../src/protocol/Address.ts"
import { frontendText } from "../../../src/protocol/PortBinding.ts"
import { dynamicPorts, type PortRange, parsePortRange } from "../../../src/protocol/PortRange.ts"
import { type Protocol, protocolNumber } from "../../../src/protocol/Protocol.ts"
import { readText } from "../../node/FileText.ts"
import * as C from "../Libc.ts"
import { scopeOf, sizeOfIpv6, socketAddress } from "./SocketAddress.ts"
import { makeAdmission, type SocketAdmission } from "./SocketAdmission.ts"

/** The kernel lowers it to net.core.somaxconn. */
const backlog = 4096

/** Closing the layer closes every socket that is still open. */
export const layer = (load = C.libc): Layer.Layer<HostSockets> =>
  Layer.effect(
    HostSockets,
    Effect.acquireRelease(
      Effect.sync(() => makeLinuxSockets(load())),
      ({ dispose }) => Effect.sync(dispose)
    ).pipe(Effect.map(({ sockets }) => sockets))
  )

const makeLinuxSockets = (libc: C.Libc) => {
  const opened = new Set<HostSocket>()
  const adopted = new AdoptedSockets<HostSocket>()
  const admission = makeAdmission(libc)

  const open = (protocol: Protocol, host: Address, port: number): Effect.Effect<HostSocket, SocketError> => {
    const claimed = adopted.claim(protocol, host, port)
    if (claimed !== undefined) return Effect.succeed(claimed)
    const scope = scopeOf(libc, host)
    if (scope < 0)
      return Effect.fail(new SocketError({ reason: "NotLocal", detail: `no interface ${host.zone}` }))
    const fd = libc.socket(
      host.family === 4 ? C.AF_INET : C.AF_INET6,
      (protocol === "udp" ? C.SOCK_DGRAM : C.SOCK_STREAM) | C.SOCK_CLOEXEC | C.SOCK_NONBLOCK,
      protocolNumber[protocol]
    )
    if (fd < 0) return Effect.fail(refusal(libc, protocol, "socket", fd))
    const socket: HostSocket = { protocol, host, port, fd }
    const failed = prepare(libc, admission, socket, socketAddress(host, port, scope))
    if (failed !== undefined) {
      libc.close(fd)
      return Effect.fail(refusal(libc, protocol, ...failed))
    }
    opened.add(socket)
    return Effect.succeed(socket)
  }

  const admit: HostSockets["Service"]["admit"] = (socket, admitted, backends = []) => {
    const result = opened.has(socket) ? admission.set(socket, admitted, backends) : 0
    if (result === -C.ENOMEM) return Effect.fail(tooManyBackends(backends.length))
    return result < 0 ? Effect.fail(refusal(libc, socket.protocol, "setsockopt", result)) : Effect.void
  }

  const close = (socket: HostSocket) => {
    if (!opened.delete(socket)) return
    admission.forget(socket)
    libc.close(socket.fd)
  }

  const adopt = (sockets: ReadonlyArray<HostSocket>): Effect.Effect<void, SocketError> => {
    const wrong = sockets.find((socket) => !isBoundAsSaid(libc, socket))
    if (wrong !== undefined)
      return Effect.fail(
        new SocketError({
          reason: "Failed",
          detail: `descriptor ${wrong.fd} is not a socket bound to ${frontendText(wrong)}`
        })
      )
    for (const socket of sockets) {
      opened.add(socket)
      adopted.add(socket)
    }
    return Effect.void
  }

  const closeUnopened = () => {
    const left = adopted.rest()
    left.forEach(close)
    return left
  }

  const sockets = HostSockets.of({
    open: (protocol, host, port) => Effect.suspend(() => open(protocol, host, port)),
    admit: (...asked) => Effect.suspend(() => admit(...asked)),
    close: (socket) => Effect.sync(() => close(socket)),
    held: Effect.sync(() => [...opened]),
    adopt: (sockets) => Effect.suspend(() => adopt(sockets)),
    closeUnopened: Effect.sync(closeUnopened),
    ephemeral: Effect.sync(() => ({
      range: readRanges("ip_local_port_range")[0] ?? dynamicPorts,
      reserved: readRanges("ip_local_reserved_ports")
    }))
  })

  const dispose = () => {
    for (const socket of opened) close(socket)
    admission.close()
  }

  return { sockets, dispose }
}

const refusal = (libc: C.Libc, protocol: Protocol, syscall: string, result: number): SocketError => {
  const { detail } = libc.errno(syscall, result)
  const reason = reasons[-result] ?? "Failed"
  const lacksProtocol = reason === "Unsupported" && -result !== C.EAFNOSUPPORT
  return new SocketError({
    reason,
    detail: lacksProtocol ? `${protocol.toUpperCase()} is not supported by this kernel` : detail
  })
}

/** The failed call and its result, or `undefined` for success. */
const prepare = (
  libc: C.Libc,
  admission: SocketAdmission,
  socket: HostSocket,
  address: Uint8Array
): readonly [string, number] | undefined => {
  const { fd, protocol } = socket
  const one = C.int32(1)
  let result = admission.set(socket, "nothing", [])
  if (result < 0) return ["setsockopt", result]
  if (protocol !== "udp") {
    result = libc.setsockopt(fd, C.SOL_SOCKET, C.SO_REUSEADDR, one, 4)
    if (result < 0) return ["setsockopt", result]
  }
  if (address.length === sizeOfIpv6) {
    result = libc.setsockopt(fd, C.IPPROTO_IPV6, C.IPV6_V6ONLY, one, 4)
    if (result < 0) return ["setsockopt", result]
  }
  result = libc.bind(fd, address, address.length)
  if (result < 0) return ["bind", result]
  if (protocol !== "udp") {
    result = libc.listen(fd, backlog)
    if (result < 0) return ["listen", result]
  }
  return undefined
}

/** By getsockname(2) and the socket's type: the sender of a descriptor may have mixed them up. */
const isBoundAsSaid = (libc: C.Libc, { fd, protocol, host, port }: HostSocket): boolean => {
  const type = new Uint8Array(4)
  if (libc.getsockopt(fd, C.SOL_SOCKET, C.SO_PROTOCOL, type, C.int32(type.length)) < 0) return false
  if (new DataView(type.buffer).getInt32(0, C.hostLittleEndian) !== protocolNumber[protocol]) return false
  const expected = socketAddress(host, port, 0)
  const found = new Uint8Array(expected.length)
  if (libc.getsockname(fd, found, C.int32(found.length)) < 0) return false
  // sin6_flowinfo and sin6_scope_id are not part of the requested address.
  const counts = (index: number) => expected.length !== sizeOfIpv6 || index < 4 || (index >= 8 && index < 24)
  return expected.every((byte, index) => !counts(index) || found[index] === byte)
}

/** The kernel accounts the filter, which has the address of each, to the socket. */
const tooManyBackends = (backends: number): SocketError =>
  new SocketError({
    reason: "Exhausted",
    detail: `cannot allocate memory: a socket's filter for ${backends} backends needs a greater net.core.optmem_max, such as 1048576`
  })

/** Others are `Failed`. */
const reasons: Readonly<Record<number, SocketError["reason"]>> = {
  [C.EADDRINUSE]: "InUse",
  [C.EACCES]: "Denied",
  [C.EPERM]: "Denied",
  [C.EADDRNOTAVAIL]: "NotLocal",
  [C.EAFNOSUPPORT]: "Unsupported",
  [C.EPROTONOSUPPORT]: "Unsupported",
  [C.ESOCKTNOSUPPORT]: "Unsupported",
  [C.EMFILE]: "Exhausted",
  [C.ENFILE]: "Exhausted",
  [C.ENOBUFS]: "Exhausted",
  [C.ENOMEM]: "Exhausted"
}

/** Ranges of a sysctl of ports, `32768 60999` or `8080,9000-9010`; none if it can't be read. */
const readRanges = (name: string): ReadonlyArray<PortRange> =>
  (readText(`/proc/sys/net/ipv4/${name}`) ?? "")
    .trim()
    .replace(/\s+/, "-")
    .split(",")
    .flatMap((range) => Result.getOrUndefined(parsePortRange(range)) ?? [])
