/**
 * Our table in the kernel: load it, change its elements, read them, tell whether it stands. What should be in it is for
 * `NftFirewall` to know.
 */
import { Effect, Result, type Scope } from "effect"
import { FirewallError } from "../../src/firewall/Firewall.ts"
import * as C from "./Libc.ts"
import { NETLINK_NETFILTER, openNetlink, type Refusal } from "./Netlink.ts"
import { findNft, loadByNft } from "./NftCommand.ts"
import {
  NFNL_SUBSYS_NFTABLES,
  readElements,
  readGeneration,
  readTable,
  writeDeleteTable,
  writeElements
} from "./NftMessages.ts"
import type { CountedElement } from "./RuleElements.ts"
import type { Table } from "./Ruleset.ts"
import { type Element, ruleSets } from "./TableSets.ts"

/** `different`: of another definition, or without some of its rules. */
export type Standing = "intact" | "absent" | "different"

export interface NftTable {
  readonly standing: (operation: string) => Result.Result<Standing, FirewallError>
  /** Every element that is part of a rule; `Gone` where a set is not there. */
  readonly read: (operation: string) => Result.Result<ReadonlyArray<CountedElement>, FirewallError>
  /**
   * One transaction. `differs`: nothing was done, since what was to go was not there, or what was to come stood there
   * with other data. After an error the outcome may be unknown.
   */
  readonly transact: (
    removed: ReadonlyArray<Element>,
    added: ReadonlyArray<Element>
  ) => Result.Result<"done" | "differs", FirewallError>
  /** Puts the table with these elements in the place of whatever has its name, in one transaction. */
  readonly load: (elements: ReadonlyArray<Element>) => Effect.Effect<void, FirewallError>
  readonly remove: () => Result.Result<void, FirewallError>
  /** Changes with every transaction on any table of this network namespace; `undefined` where it cannot be read. */
  readonly generation: () => number | undefined
  readonly gone: (operation: string) => FirewallError
}

export const openTable = Effect.fnUntraced(function* (
  table: Table,
  libc: C.Libc
): Effect.fn.Return<NftTable, FirewallError, Scope.Scope> {
  const where = `nftables table inet ${table.name}`
  const failed = (operation: string, reason: FirewallError["reason"], detail: string) =>
    new FirewallError({ reason, operation: `${operation} ${where}`, detail })
  const gone = (operation: string) => failed(operation, "Gone", "the table is gone")
  const failedBy = (operation: string, { errno, detail }: C.Errno) =>
    errno === C.ENOENT ? gone(operation) : failed(operation, reasonOf(errno), remedied(errno, detail))

  const { PATH = "" } = process.env
  const nft = findNft(PATH)
  if (nft === undefined)
    return yield* failed("loading", "Unsupported", "nft is not installed (Debian's package nftables)")

  const netlink = yield* Effect.acquireRelease(
    Effect.suspend(() =>
      Result.match(openNetlink(libc, NETLINK_NETFILTER), {
        onFailure: (errno) => Effect.fail(failedBy("opening", errno)),
        onSuccess: Effect.succeed
      })
    ),
    ({ close }) => Effect.sync(close)
  )

  const refused = (operation: string, refusals: ReadonlyArray<Refusal>): FirewallError => {
    const first = refusals.find(({ errno }) => !disagreements.has(errno)) ?? refusals[0]
    return failedBy(operation, libc.errno("batch", -(first?.errno ?? C.ENOBUFS)))
  }

  const standing: NftTable["standing"] = (operation) =>
    Result.match(readTable(netlink, table.name), {
      onFailure: (errno) => Result.fail(failedBy(operation, errno)),
      onSuccess: (read) => {
        if (read === undefined) return Result.succeed("absent")
        const intact = read.comment === table.comment && read.rules === table.rules
        return Result.succeed(intact ? "intact" : "different")
      }
    })

  const read: NftTable["read"] = (operation) => {
    const elements: Array<CountedElement> = []
    for (const set of ruleSets) {
      const some = readElements(netlink, table.name, set)
      if (Result.isFailure(some)) return Result.fail(failedBy(operation, some.failure))
      for (const element of some.success) elements.push(element)
    }
    return Result.succeed(elements)
  }

  const transact: NftTable["transact"] = (removed, added) => {
    if (removed.length === 0 && added.length === 0) return Result.succeed("done")
    const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) =>
      writeElements(batch, table.name, removed, added)
    )
    if (Result.isFailure(outcome)) return Result.fail(failedBy("changing", outcome.failure))
    if (outcome.success.length === 0) return Result.succeed("done")
    return outcome.success.every(({ errno }) => disagreements.has(errno))
      ? Result.succeed("differs")
      : Result.fail(refused("changing", outcome.success))
  }

  const remove: NftTable["remove"] = () => {
    const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => writeDeleteTable(batch, table.name))
    if (Result.isFailure(outcome)) return Result.fail(failedBy("removing", outcome.failure))
    const refusals = outcome.success.filter(({ errno }) => errno !== C.ENOENT)
    return refusals.length === 0 ? Result.void : Result.fail(refused("removing", refusals))
  }

  return {
    standing,
    read,
    transact,
    remove,
    gone,
    load: (elements) => loadByNft(nft, `loading ${where}`, table.load(elements)),
    generation: () => Result.getOrUndefined(readGeneration(netlink))
  }
})

/** What the kernel says where an element is not, or is, where it was not expected to be. */
const disagreements = new Set([C.ENOENT, C.EEXIST, C.EBUSY, C.ENOTEMPTY])

const reasonOf = (errno: number): FirewallError["reason"] => {
  switch (errno) {
    case C.EPERM:
    case C.EACCES:
      return "Denied"
    case C.EPROTONOSUPPORT:
    case C.EAFNOSUPPORT:
    case C.EOPNOTSUPP:
      return "Unsupported"
    case C.ENOBUFS:
    case C.ENOMEM:
    case C.EAGAIN:
    case C.EINTR:
    case C.EMSGSIZE:
      return "Busy"
    default:
      return "Failed"
  }
}

const remedied = (errno: number, detail: string): string => {
  switch (reasonOf(errno)) {
    case "Denied":
      return `${detail}: it takes root, or the capability CAP_NET_ADMIN`
    case "Busy":
      return `${detail}: the kernel could not take the change now`
    default:
      return detail
  }
}
