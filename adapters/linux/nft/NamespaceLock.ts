/**
 * Only one process at a time uses the kernel's table of a network namespace: two would each delete the other's
 * elements as leftovers. The lock is an empty table beside it that our netlink socket owns: only a process that may
 * change tables can create one, no other process can change or flush it, and the kernel removes it when the last
 * descriptor of the socket closes. So a successor that inherits a descriptor holds the lock without a gap.
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

/** Another process holds the lock; `pid` where `/proc` shows it. */
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
   * The socket that holds the lock; every change of the table goes over it. Takes the lock if this process does not
   * hold it yet, which proves that the process may change tables.
   */
  readonly take: Effect.Effect<Netlink, NamespaceBusy | FirewallError>
  /** For a successor: a process with a copy of it holds the lock. */
  readonly descriptor: () => number | undefined
  readonly release: () => void
}

/** Holds the lock until the scope closes; `inherited` is a descriptor from a predecessor. */
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
      // A failed successor may have left answers unread.
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
        `nftables table inet ${table} is not protected against a second plugin: the kernel is older than 5.12, and has no owned tables`
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

/**
 * The table has no chains, so the second flag has only one effect: nft 1.0.6 prints broken JSON of a table with one
 * flag.
 */
const lockFlags = NFT_TABLE_F_OWNER | NFT_TABLE_F_DORMANT

/** If the owner exits between two attempts, the table is free for us. */
const attempts = 3

/**
 * Makes this socket the owner of the table `name`, creating it if it does not exist; errors name `table`. `false`
 * where the kernel does not support owners, or can't give the existing table one.
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

/** The kernel's errors for a table flag that it does not know. */
export const isUnknownFlag = (errno: number): boolean => errno === C.EOPNOTSUPP || errno === C.EINVAL
