/** What other processes change in our table where the kernel lets them, by the kernel's events (nft_commit_notify). */
import { Effect, Result, type Scope } from "effect"
import * as C from "../Libc.ts"
import { NETLINK_NETFILTER, type Netlink, scopedNetlink } from "../netlink/Netlink.ts"
import { findAttribute, type Message, netfilterHeaderLength } from "../netlink/NetlinkMessage.ts"
import { NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_MSG_DELSETELEM, NFT_MSG_NEWSETELEM } from "./NftMessages.ts"

const NFNLGRP_NFTABLES = 7
/** The name of the table, in every object of one. */
const NFTA_TABLE = 1

/** `definition`: the table itself, a set, a chain or a rule. */
export type ForeignChange = "elements" | "definition"

/** Returns what others changed since the last call; `changer` is our own socket. */
export const watchTable = Effect.fnUntraced(function* (
  libc: C.Libc,
  table: string,
  changer: Netlink
): Effect.fn.Return<() => ForeignChange | undefined, C.Errno, Scope.Scope> {
  const events = yield* scopedNetlink(libc, NETLINK_NETFILTER)
  yield* Effect.fromResult(events.subscribe(NFNLGRP_NFTABLES))
  const name = Buffer.from(`${table}\0`)

  const isForeign = ({ type, portId, body }: Message): boolean =>
    type >> 8 === NFNL_SUBSYS_NFTABLES &&
    portId !== changer.portId &&
    body[0] === NFPROTO_INET &&
    name.equals(findAttribute(body, netfilterHeaderLength, NFTA_TABLE) ?? new Uint8Array())

  return () => {
    const received = events.receive()
    if (Result.isFailure(received)) {
      // Some were lost: read on, since nothing else empties the socket.
      if (received.failure.errno === C.ENOBUFS) events.receive()
      return "elements"
    }
    const foreign = received.success.filter(isForeign)
    if (foreign.length === 0) return undefined
    return foreign.every(({ type }) => elementTypes.has(type & 0xff)) ? "elements" : "definition"
  }
})

const elementTypes = new Set([NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM])
