/**
 * Our table in the kernel: loads it, changes and reads its elements, and reports whether it is intact.
 * `NftFirewall` decides what should be in it.
 *
 * From Linux 6.9 on it is an owned, persistent table: no other process can flush or change it, and it stays with
 * its elements when our process ends. Where the kernel refuses these flags it is an ordinary table.
 */
import { Effect, Result, type Scope } from "effect"
import type { FirewallError } from "../../../src/firewall/Firewall.ts"
import * as C from "../Libc.ts"
import type { Netlink, Refusal } from "../netlink/Netlink.ts"
import { claimTable, isUnknownFlag, type NamespaceBusy } from "./NamespaceLock.ts"
import { findCommand } from "./NftCommand.ts"
import { compile, type Definition, writeDefinition, writeServices } from "./NftDefinition.ts"
import { tableErrors } from "./NftErrors.ts"
import {
  countRules,
  NFNL_SUBSYS_NFTABLES,
  NFT_TABLE_F_OWNER,
  NFT_TABLE_F_PERSIST,
  readElements,
  readGeneration,
  readTable,
  writeDeleteTable,
  writeElements,
  writeTable
} from "./NftMessages.ts"
import type { CountedElement } from "./RuleElements.ts"
import type { Table } from "./Ruleset.ts"
import { type ForeignChange, watchTable } from "./TableEvents.ts"
import { type Element, elementKey, ruleSets, type TableSet } from "./TableSets.ts"

/** `different`: it has another definition, lacks some of its rules, or has no owner where it could be ours. */
export type TableState = "intact" | "absent" | "different"

export interface NftTable {
  readonly standing: (operation: string) => Result.Result<TableState, FirewallError>
  /** Every element that is part of a rule, or those of some sets; `Gone` if a set is missing. */
  readonly read: (
    operation: string,
    sets?: ReadonlyArray<TableSet>
  ) => Result.Result<ReadonlyArray<CountedElement>, FirewallError>
  /**
   * One transaction. `differs`: the kernel applied nothing, since an element to delete was missing, or an element
   * to add existed with other data. After an error the outcome may be unknown.
   */
  readonly transact: (
    removed: ReadonlyArray<Element>,
    added: ReadonlyArray<Element>
  ) => Result.Result<"done" | "differs", FirewallError>
  /** Replaces any table of this name by one with these elements, in one transaction. */
  readonly load: (elements: ReadonlyArray<Element>) => Result.Result<void, FirewallError>
  readonly remove: () => Result.Result<void, FirewallError>
  /** Changes with every transaction on any table of this network namespace; `undefined` if it can't be read. */
  readonly generation: () => number | undefined
  /** What other processes changed in it since the last call, where they can. */
  readonly foreignChange: () => ForeignChange | undefined
  readonly gone: (operation: string) => FirewallError
  readonly changed: (operation: string) => FirewallError
}

const ownedFlags = NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST

/**
 * On the socket that holds the lock. An existing table stays as it is, but only this socket can change it from now
 * on.
 */
export const openTable = Effect.fnUntraced(function* (
  table: Table,
  libc: C.Libc,
  netlink: Netlink
): Effect.fn.Return<NftTable, FirewallError | NamespaceBusy, Scope.Scope> {
  const { failed, failedBy } = tableErrors(table.name)
  const nft = findCommand("nft")
  if (nft === undefined)
    return yield* failed("loading", "Unsupported", "nft is not installed (Debian's package nftables)")
  const found = yield* Effect.fromResult(
    Result.mapError(readTable(netlink, table.name), (errno) => failedBy("reading", errno))
  )
  const flags = (yield* Effect.fromResult(canOwn(netlink, libc, table.name))) ? ownedFlags : 0
  if (found !== undefined && flags !== 0)
    yield* Effect.fromResult(claimTable(netlink, libc, table.name, table.name, flags))
  const foreignChange =
    flags === 0
      ? yield* Effect.mapError(watchTable(libc, table.name, netlink), (errno) => failedBy("watching", errno))
      : () => undefined
  const definition = yield* compile(nft, netlink, table, (errno) => failedBy("compiling", errno))
  const services = { on: false }
  return {
    ...looks(table, netlink, flags, services),
    foreignChange,
    ...changes({ table, libc, netlink, definition, flags, services })
  }
})

/**
 * A dump of a set that the kernel is enlarging has some elements twice and lacks others (seen with 1,024 slots, right
 * after they were added): then it is read again.
 */
const readWhole = <E>(
  read: () => Result.Result<ReadonlyArray<CountedElement>, E>,
  attempts = 10
): Result.Result<ReadonlyArray<CountedElement>, E> =>
  Result.flatMap(read(), (elements) =>
    attempts > 1 && new Set(elements.map(elementKey)).size < elements.length
      ? readWhole(read, attempts - 1)
      : Result.succeed(elements)
  )

/** Tries it with a table that one transaction creates and deletes: no other process sees it. */
const canOwn = (netlink: Netlink, libc: C.Libc, table: string): Result.Result<boolean, FirewallError> => {
  const name = `${table}-probe`
  const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => {
    writeTable(batch, { name, flags: ownedFlags })
    writeDeleteTable(batch, name)
  })
  const { failedBy } = tableErrors(table)
  if (Result.isFailure(outcome)) return Result.fail(failedBy("probing", outcome.failure))
  const [refusal] = outcome.success
  if (refusal === undefined) return Result.succeed(true)
  return isUnknownFlag(refusal.errno)
    ? Result.succeed(false)
    : Result.fail(failedBy("probing", libc.errno("batch", -refusal.errno)))
}

type Looks = Pick<NftTable, "standing" | "read" | "generation" | "gone" | "changed">

/** Whether the table has the rules for services; they are added with the first one. */
interface Services {
  on: boolean
}

const looks = (table: Table, netlink: Netlink, flags: number, services: Services): Looks => {
  const { failedBy, gone, changed } = tableErrors(table.name)

  const standing: NftTable["standing"] = (operation) => {
    const found = readTable(netlink, table.name)
    if (Result.isFailure(found)) return Result.fail(failedBy(operation, found.failure))
    if (found.success === undefined) return Result.succeed("absent")
    if (found.success.comment !== table.comment) return Result.succeed("different")
    if (flags !== 0 && found.success.owner === undefined) return Result.succeed("different")
    return Result.mapBoth(countRules(netlink, table.name), {
      onFailure: (errno) => failedBy(operation, errno),
      onSuccess: (rules) => {
        services.on = rules === table.rules + table.rulesOfServices
        return services.on || rules === table.rules ? "intact" : "different"
      }
    })
  }

  const read: NftTable["read"] = (operation, sets = ruleSets) => {
    const elements: Array<CountedElement> = []
    for (const set of sets) {
      const some = readWhole(() => readElements(netlink, table.name, set))
      if (Result.isFailure(some)) return Result.fail(failedBy(operation, some.failure))
      for (const element of some.success) elements.push(element)
    }
    return Result.succeed(elements)
  }

  return { standing, read, gone, changed, generation: () => Result.getOrUndefined(readGeneration(netlink)) }
}

interface Parts {
  readonly table: Table
  readonly libc: C.Libc
  readonly netlink: Netlink
  readonly definition: Definition
  readonly flags: number
  readonly services: Services
}

const isOfService = ({ set }: Element): boolean => set.slots !== undefined

const changes = ({
  table,
  libc,
  netlink,
  definition,
  flags,
  services
}: Parts): Omit<NftTable, keyof Looks | "foreignChange"> => {
  const { failedBy } = tableErrors(table.name)
  const refused = (operation: string, refusals: ReadonlyArray<Refusal>): FirewallError => {
    const first = refusals.find(({ errno }) => !disagreements.has(errno)) ?? refusals[0]
    return failedBy(operation, libc.errno("batch", -(first?.errno ?? C.ENOBUFS)))
  }

  const transact: NftTable["transact"] = (removed, added) => {
    if (removed.length === 0 && added.length === 0) return Result.succeed("done")
    const isFirstService = !services.on && added.some(isOfService)
    const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => {
      writeElements(batch, table.name, removed, added)
      if (isFirstService) writeServices(batch, table.name, definition)
    })
    if (Result.isFailure(outcome)) return Result.fail(failedBy("changing", outcome.failure))
    if (outcome.success.length === 0) {
      services.on ||= isFirstService
      return Result.succeed("done")
    }
    return outcome.success.every(({ errno }) => disagreements.has(errno))
      ? Result.succeed("differs")
      : Result.fail(refused("changing", outcome.success))
  }

  const load: NftTable["load"] = (elements) => {
    const withServices = elements.some(isOfService)
    const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => {
      // A missing element can't be deleted.
      writeTable(batch, { name: table.name })
      writeDeleteTable(batch, table.name)
      writeTable(batch, { name: table.name, flags, comment: table.comment })
      writeDefinition(batch, table.name, definition, withServices)
      writeElements(batch, table.name, [], elements)
    })
    if (Result.isFailure(outcome)) return Result.fail(failedBy("loading", outcome.failure))
    if (outcome.success.length > 0) return Result.fail(refused("loading", outcome.success))
    services.on = withServices
    return Result.void
  }

  const remove: NftTable["remove"] = () => Result.map(deleteTable(netlink, libc, table.name), () => {})

  return { transact, load, remove }
}

/** Whether there was a table. */
export const deleteTable = (
  netlink: Netlink,
  libc: C.Libc,
  table: string
): Result.Result<boolean, FirewallError> => {
  const { failedBy } = tableErrors(table)
  const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => writeDeleteTable(batch, table))
  if (Result.isFailure(outcome)) return Result.fail(failedBy("removing", outcome.failure))
  const [refusal] = outcome.success
  if (refusal === undefined) return Result.succeed(true)
  return refusal.errno === C.ENOENT
    ? Result.succeed(false)
    : Result.fail(failedBy("removing", libc.errno("batch", -refusal.errno)))
}

/** The kernel's errors for an element that is missing, or that exists already. */
const disagreements = new Set([C.ENOENT, C.EEXIST, C.EBUSY, C.ENOTEMPTY])
