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
const receiveBuffer = 1 << 20

/** 0, or a negated `errno`. */
export const setOptions = (libc: C.Libc, { fd, protocol, host }: HostSocket): number => {
  if (protocol === "tcp") {
    libc.setsockopt(fd, C.IPPROTO_TCP, C.TCP_NODELAY, int(1), 4)
    libc.setsockopt(fd, C.SOL_SOCKET, C.SO_KEEPALIVE, int(1), 4)
    libc.setsockopt(fd, C.IPPROTO_TCP, C.TCP_KEEPIDLE, int(keepaliveSeconds), 4)
    libc.setsockopt(fd, C.IPPROTO_TCP, C.TCP_KEEPINTVL, int(keepaliveIntervalSeconds), 4)
    return 0
  }
  if (libc.setsockopt(fd, C.SOL_SOCKET, C.SO_RCVBUFFORCE, int(receiveBuffer), 4) < 0)
    libc.setsockopt(fd, C.SOL_SOCKET, C.SO_RCVBUF, int(receiveBuffer), 4)
  // Answers leave from the address that the client sent to.
  if (!isUnspecified(host)) return 0
  return host.family === 4
    ? libc.setsockopt(fd, C.IPPROTO_IP, C.IP_PKTINFO, int(1), 4)
    : libc.setsockopt(fd, C.IPPROTO_IPV6, C.IPV6_RECVPKTINFO, int(1), 4)
}

const option = new Int32Array(1)
const optionBytes = new Uint8Array(option.buffer)

/** Reuses the same four bytes: the kernel copies them. */
const int = (value: number): Uint8Array => {
  option[0] = value
  return optionBytes
}
