/**
 * One process at a time on the kernel's table of a network namespace: two would each take the other's elements for
 * leftovers. The lock is an empty table beside it that our netlink socket owns: only a process that may change tables can
 * make one, no other process can change or flush it, and the kernel removes it with the last descriptor of the socket. So a
 * successor that is given a descriptor holds the lock without a moment in which nobody does.
 */
import { Effect, Result, Schema, type Scope } from "effect"
import type { FirewallError } from "../../../src/firewall/Firewall.ts"
import * as C from "../Libc.ts"
import { NETLINK_NETFILTER, type Netlink, openNetlink } from "../netlink/Netlink.ts"
import { netlinkInode, processOfSocket } from "../sockets/SocketHolder.ts"
import { tableErrors } from "./NftErrors.ts"
import {
  NFNL_SUBSYS_NFTABLES,
  NFT_TABLE_F_DORMANT,
  NFT_TABLE_F_OWNER,
  readTable,
  writeTable
} from "./NftMessages.ts"

/** Another process has the table; `pid` where `/proc` shows it. */
export class NamespaceBusy extends Schema.TaggedError<NamespaceBusy>()("NamespaceBusy", {
  table: Schema.String,
  pid: Schema.UndefinedOr(Schema.Int)
}) {
  override get message(): string {
    const holder = this.pid === undefined ? "another process" : `process ${this.pid}`
    return `${holder} keeps the table inet ${this.table} of this network namespace`
  }
}

export interface NamespaceLock {
  /**
   * The socket that has the lock, over which every change of the table goes. Takes the lock where it is not held yet, and
   * proves by it that this process may change tables.
   */
  readonly take: Effect.Effect<Netlink, NamespaceBusy | FirewallError>
  /** For a successor: whoever has a copy of it has the lock. */
  readonly descriptor: () => number | undefined
  readonly release: () => void
}

/** Holds what it takes until the scope closes; `inherited` is a descriptor from a predecessor. */
export const makeNamespaceLock = (
  table = "portmapper",
  load = C.libc,
  inherited?: number
): Effect.Effect<NamespaceLock, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => lockOf(table, load, inherited)),
    ({ release }) => Effect.sync(release)
  )

const lockOf = (table: string, load: typeof C.libc, inherited: number | undefined): NamespaceLock => {
  let held: Netlink | undefined
  let received = inherited

  const take = Effect.gen(function* () {
    if (held !== undefined) {
      // A successor that came to nothing may have left answers behind.
      held.receive()
      return held
    }
    const opened = openNetlink(load(), NETLINK_NETFILTER, received)
    received = undefined
    if (Result.isFailure(opened)) return yield* tableErrors(table).failedBy("locking", opened.failure)
    const netlink = opened.success
    netlink.receive()
    const claimed = claimTable(netlink, load(), table, `${table}-lock`, lockFlags)
    if (Result.isFailure(claimed)) {
      netlink.close()
      return yield* claimed.failure
    }
    if (!claimed.success)
      yield* Effect.logWarning(
        `nothing keeps a second plugin off nftables table inet ${table}: the kernel is older than 5.12, and has no owned tables`
      )
    held = netlink
    return netlink
  })

  return {
    take,
    descriptor: () => held?.fd ?? received,
    release: () => {
      held?.close()
      if (received !== undefined) load().close(received)
      held = undefined
      received = undefined
    }
  }
}

/** It has no chains, so the second flag changes nothing but this: nft 1.0.6 prints broken JSON of a table with one flag. */
const lockFlags = NFT_TABLE_F_OWNER | NFT_TABLE_F_DORMANT

/** A holder that ends between two looks leaves the table to us. */
const attempts = 3

/**
 * Makes this socket the owner of a table, which is made where it is not there; `table` is what it is claimed for. `false`
 * where the kernel has no such owner, or the table none to change.
 */
export const claimTable = (
  netlink: Netlink,
  libc: C.Libc,
  table: string,
  name: string,
  flags: number
): Result.Result<boolean, NamespaceBusy | FirewallError> => {
  const { failedBy } = tableErrors(table)
  for (let attempt = 0; ; attempt++) {
    const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => writeTable(batch, { name, flags }))
    if (Result.isFailure(outcome)) return Result.fail(failedBy("locking", outcome.failure))
    const errno = outcome.success[0]?.errno ?? 0
    if (errno === 0) return Result.succeed(true)
    if (isUnknownFlag(errno)) return Result.succeed(false)
    const owner = errno === C.EPERM ? Result.getOrUndefined(readTable(netlink, name))?.owner : undefined
    if (owner !== undefined)
      return Result.fail(new NamespaceBusy({ table, pid: processOfSocket(netlinkInode(owner)) }))
    if (errno !== C.EPERM || attempt === attempts)
      return Result.fail(failedBy("locking", libc.errno("batch", -errno)))
  }
}

/** What a kernel says of a table's flag that it does not know. */
export const isUnknownFlag = (errno: number): boolean => errno === C.EOPNOTSUPP || errno === C.EINVAL
