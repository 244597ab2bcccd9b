/**
 * The options of a relayed reserved socket: tcp(7), udp(7), ip(7), ipv6(7). They are set before the socket admits
 * packets, since accepted sockets inherit them from their listener, and a packet's destination address is recorded
 * only when it arrives.
 */
import type { HostSocket } from "../../src/ports/HostSockets.ts"
import { isUnspecified } from "../../src/protocol/Address.ts"
import * as C from "../linux/Libc.ts"
import { keepaliveIntervalSeconds, keepaliveSeconds } from "./ThreadMessages.ts"

/** Bursts wait here while the thread serves others; only waiting packets use the memory. */
const receiveBuffer = C.int32(1 << 20)
const on = C.int32(1)
const keepaliveTime = C.int32(keepaliveSeconds)
const keepaliveInterval = C.int32(keepaliveIntervalSeconds)

/** 0, or a negated `errno`. */
export const setOptions = (libc: C.Libc, { fd, protocol, host }: HostSocket): number => {
  if (protocol === "tcp") {
    libc.setsockopt(fd, C.IPPROTO_TCP, C.TCP_NODELAY, on, 4)
    libc.setsockopt(fd, C.SOL_SOCKET, C.SO_KEEPALIVE, on, 4)
    libc.setsockopt(fd, C.IPPROTO_TCP, C.TCP_KEEPIDLE, keepaliveTime, 4)
    libc.setsockopt(fd, C.IPPROTO_TCP, C.TCP_KEEPINTVL, keepaliveInterval, 4)
    return 0
  }
  if (libc.setsockopt(fd, C.SOL_SOCKET, C.SO_RCVBUFFORCE, receiveBuffer, 4) < 0)
    libc.setsockopt(fd, C.SOL_SOCKET, C.SO_RCVBUF, receiveBuffer, 4)
  // Answers leave from the address that the client sent to.
  if (!isUnspecified(host)) return 0
  return host.family === 4
    ? libc.setsockopt(fd, C.IPPROTO_IP, C.IP_PKTINFO, on, 4)
    : libc.setsockopt(fd, C.IPPROTO_IPV6, C.IPV6_RECVPKTINFO, on, 4)
}
