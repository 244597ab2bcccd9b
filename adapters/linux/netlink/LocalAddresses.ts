/**
 * Which addresses are this host's own, as `fib daddr type local` decides it: those in the kernel's local routing
 * table, including ranges that an administrator routed to the host as a whole. Source: rtnetlink(7).
 */
import { Result } from "effect"
import * as C from "../Libc.ts"
import type { Netlink } from "./Netlink.ts"
import { findAttribute, type Message } from "./NetlinkMessage.ts"

const RTM_GETROUTE = 26
const RTA_DST = 1
const RT_TABLE_LOCAL = 255
const RTN_LOCAL = 2

/** struct rtmsg; a dump request writes its first third as netfilter's header. */
const routeHeaderLength = 12

export type IsLocal = (address: Uint8Array) => boolean

/** `netlink` is a NETLINK_ROUTE socket. */
export const readLocal = (netlink: Netlink, family: 4 | 6): Result.Result<IsLocal, C.Errno> =>
  Result.map(
    netlink.dump({
      subsystem: 0,
      type: RTM_GETROUTE,
      family: family === 4 ? C.AF_INET : C.AF_INET6,
      write: (writer) => writer.append(Uint8Array.of(RT_TABLE_LOCAL, 0, 0, RTN_LOCAL, 0, 0, 0, 0))
    }),
    (messages) => among(messages, family === 4 ? 32 : 128)
  )

const among = (messages: ReadonlyArray<Message>, bits: number): IsLocal => {
  const addresses = new Set<string>()
  const ranges: Array<{ readonly prefix: Uint8Array; readonly length: number }> = []
  for (const { body } of messages) {
    if (body[4] !== RT_TABLE_LOCAL || body[7] !== RTN_LOCAL) continue
    const length = body[1] ?? 0
    const prefix = findAttribute(body, routeHeaderLength, RTA_DST) ?? new Uint8Array(bits / 8)
    if (length === bits) addresses.add(textOf(prefix))
    else ranges.push({ prefix, length })
  }
  return (address) =>
    addresses.has(textOf(address)) ||
    ranges.some(({ prefix, length }) => {
      const whole = length >> 3
      for (let at = 0; at < whole; at++) if (prefix[at] !== address[at]) return false
      const rest = length & 7
      return rest === 0 || ((prefix[whole] ?? 0) ^ (address[whole] ?? 0)) >> (8 - rest) === 0
    })
}

const textOf = (octets: Uint8Array): string => String.fromCharCode(...octets)
