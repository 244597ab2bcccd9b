/**
 * `InterfaceAddresses` on Linux: the kernel's links and addresses, read whenever it reports that one of them changed.
 * Source: rtnetlink(7), include/uapi/linux/if_addr.h and if_link.h.
 */
import { Effect, Layer, Result } from "effect"
import {
  followed,
  InterfaceAddresses,
  InterfaceError,
  type Interfaces
} from "../../../src/ports/InterfaceAddresses.ts"
import { type Address, fromOctets, isLinkLocal } from "../../../src/protocol/Address.ts"
import * as C from "../Libc.ts"
import { NETLINK_ROUTE, type Netlink, scopedNetlink } from "./Netlink.ts"
import { findAttribute, type Message } from "./NetlinkMessage.ts"

const RTM_GETLINK = 18
const RTM_GETADDR = 22
const RTNLGRP_LINK = 1
const RTNLGRP_IPV4_IFADDR = 5
const RTNLGRP_IPV6_IFADDR = 9

/** struct ifinfomsg and struct ifaddrmsg; a dump request writes their first four bytes as netfilter's header. */
const linkHeaderLength = 16
const addressHeaderLength = 8
const IFLA_IFNAME = 3
const IFA_ADDRESS = 1
/** The host's own address, where `IFA_ADDRESS` is that of the peer. */
const IFA_LOCAL = 2
const IFA_FLAGS = 8
/** Of an IPv6 address; an IPv4 address with this flag is a secondary one. */
const IFA_F_TEMPORARY = 0x01
const IFA_F_DADFAILED = 0x08
const IFA_F_TENTATIVE = 0x40

/** In the network namespace of the calling thread. */
export const layer: Layer.Layer<InterfaceAddresses> = Layer.sync(InterfaceAddresses, () => {
  const open = Effect.mapError(scopedNetlink(C.libc(), NETLINK_ROUTE), failed)
  const current = Effect.flatMap(open, (netlink) =>
    Effect.mapError(Effect.fromResult(readInterfaces(netlink)), failed)
  ).pipe(Effect.scoped)
  return followed(current, (onChange) =>
    Effect.gen(function* () {
      const events = yield* open
      for (const group of [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR])
        yield* Effect.mapError(Effect.fromResult(events.subscribe(group)), failed)
      yield* Effect.acquireRelease(
        Effect.sync(() =>
          C.libc().onReadable(events.fd, () => {
            // Where some were lost, what is there says what they would have said.
            events.receive()
            onChange()
          })
        ),
        (stop) => Effect.sync(stop)
      )
    })
  )
})

const failed = ({ message }: C.Errno) => new InterfaceError({ detail: message })

const readInterfaces = (netlink: Netlink): Result.Result<Interfaces, C.Errno> =>
  Result.gen(function* () {
    const dump = (type: number, headerLength: number) =>
      netlink.dump({
        ...{ subsystem: 0, type, family: 0 },
        write: (writer) => writer.append(new Uint8Array(headerLength - 4))
      })
    const links = yield* dump(RTM_GETLINK, linkHeaderLength)
    const addresses = yield* dump(RTM_GETADDR, addressHeaderLength)
    const byIndex = Map.groupBy(addresses, ({ body }) => numberAt(body, 4))
    return new Map(
      links.flatMap(({ body }) => {
        const name = findAttribute(body, linkHeaderLength, IFLA_IFNAME)
        if (name === undefined) return []
        return [[textOf(name), (byIndex.get(numberAt(body, 4)) ?? []).flatMap(publishable)] as const]
      })
    )
  })

const publishable = ({ body }: Message): ReadonlyArray<Address> => {
  const octets = attribute(body, IFA_LOCAL) ?? attribute(body, IFA_ADDRESS)
  if (octets?.length !== 4 && octets?.length !== 16) return []
  const address = fromOctets(octets)
  if (address.family === 4) return [address]
  const wide = attribute(body, IFA_FLAGS)
  const flags = wide === undefined ? (body[2] ?? 0) : numberAt(wide, 0)
  const isUnfit = (flags & (IFA_F_TEMPORARY | IFA_F_TENTATIVE | IFA_F_DADFAILED)) !== 0
  return isUnfit || isLinkLocal(address) ? [] : [address]
}

const attribute = (body: Uint8Array, type: number) => findAttribute(body, addressHeaderLength, type)

const numberAt = (bytes: Uint8Array, at: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset).getUint32(at, C.hostLittleEndian)

/** Without the zero byte at the end. */
const textOf = (bytes: Uint8Array): string => Buffer.from(bytes.subarray(0, -1)).toString("utf8")
