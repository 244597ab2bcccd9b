/**
 * `Firewall` as a table of nftables. A child `nft` loads the table when it is not there as it should be; its elements come and
 * go by netlink, on a socket kept open. The table outlives the process that loaded it.
 */
import { Effect, Layer, Result, Semaphore } from "effect"
import {
  type Change,
  Firewall,
  FirewallError,
  type Rule,
  ruleKey,
  ruleText
} from "../../src/firewall/Firewall.ts"
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
import { type CountedElement, elementsOf, rulesOf, unfit } from "./RuleElements.ts"
import { type AcceptMark, makeTable } from "./Ruleset.ts"
import { type Element, elementKey, sameData, tableSets } from "./TableSets.ts"

export interface Options {
  readonly acceptMark?: AcceptMark | undefined
  /** The name of the table, in family inet. */
  readonly table?: string | undefined
}

/** A table left by an earlier process is taken over as it is, and one that differs is replaced by the first change. */
export const layer = (options: Options = {}): Layer.Layer<Firewall, FirewallError> =>
  Layer.effect(Firewall, make(options))

const make = Effect.fnUntraced(function* (options: Options) {
  const { PATH = "" } = process.env
  const libc = C.libc()
  const table = makeTable({ name: options.table ?? "portmapper", acceptMark: options.acceptMark })
  const where = `nftables table inet ${table.name}`

  const failed = (operation: string, { errno, detail }: C.Errno): FirewallError =>
    new FirewallError({
      reason: reasonOf(errno),
      operation: `${operation} ${where}`,
      detail: remedied(errno, detail)
    })

  const nft = findNft(PATH)
  if (nft === undefined)
    return yield* new FirewallError({
      reason: "Unsupported",
      operation: `loading ${where}`,
      detail: "nft is not installed (Debian's package nftables)"
    })
  const netlink = yield* Effect.acquireRelease(
    Effect.suspend(() =>
      Result.match(openNetlink(libc, NETLINK_NETFILTER), {
        onFailure: (errno) => Effect.fail(failed("opening", errno)),
        onSuccess: Effect.succeed
      })
    ),
    ({ close }) => Effect.sync(close)
  )

  /** What the table holds, as far as this process knows: kept to know what a change replaces. */
  let known = new Map<string, Rule>()
  /** Whether the table was loaded with this very definition; until it was, a change loads it whole. */
  let loaded = false
  let generation = -1

  const gone = (operation: string) =>
    new FirewallError({ reason: "Gone", operation: `${operation} ${where}`, detail: "the table is gone" })

  /** `intact`, `absent`, or there with another definition or without some of its rules. */
  const standing = (): Result.Result<"intact" | "absent" | "different", C.Errno> =>
    Result.map(readTable(netlink, table.name), (read) => {
      if (read === undefined) return "absent"
      return read.comment === table.comment && read.rules === table.rules ? "intact" : "different"
    })

  const readAll = (): Result.Result<ReadonlyArray<CountedElement>, C.Errno> => {
    const elements: Array<CountedElement> = []
    for (const set of tableSets) {
      const read = readElements(netlink, table.name, set)
      if (Result.isFailure(read)) return Result.fail(read.failure)
      for (const element of read.success) elements.push(element)
    }
    return Result.succeed(elements)
  }

  const transact = (removed: ReadonlyArray<Element>, added: ReadonlyArray<Element>) =>
    netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => writeElements(batch, table.name, removed, added))

  const learn = (rules: Iterable<Rule>) => {
    known = new Map()
    for (const rule of rules) known.set(keyOf(rule), rule)
  }

  const load = Effect.fnUntraced(function* (rules: ReadonlyArray<Rule>) {
    yield* loadByNft(nft, `loading ${where}`, table.load(rules.flatMap(elementsOf)))
    learn(rules)
    loaded = true
  }, Effect.uninterruptible)

  const refused = (operation: string, refusals: ReadonlyArray<Refusal>): FirewallError => {
    const worst = refusals.find(({ errno }) => !disagreements.has(errno)) ?? refusals[0]
    return failed(operation, libc.errno("batch", -(worst?.errno ?? C.ENOBUFS)))
  }

  const changed = (change: Change): ReadonlyMap<string, Rule | undefined> => {
    const after = new Map<string, Rule | undefined>()
    for (const rule of change.remove) after.set(keyOf(rule), undefined)
    for (const rule of change.add) after.set(keyOf(rule), rule)
    return after
  }

  const applyOnce = (after: ReadonlyMap<string, Rule | undefined>) => {
    const removed: Array<Element> = []
    const added: Array<Element> = []
    for (const [key, rule] of after) {
      const before = known.get(key)
      const elements = rule === undefined ? [] : elementsOf(rule)
      if (before !== undefined) removed.push(...missing(elementsOf(before), elements))
      added.push(...elements)
    }
    if (removed.length === 0 && added.length === 0) return Result.succeed([])
    return transact(removed, added)
  }

  const remember = (after: ReadonlyMap<string, Rule | undefined>): undefined => {
    for (const [key, rule] of after)
      if (rule === undefined) known.delete(key)
      else known.set(key, rule)
  }

  /** `undefined` where all is done. */
  const apply = (change: Change): FirewallError | undefined => {
    const after = changed(change)
    const first = applyOnce(after)
    if (Result.isFailure(first)) return failed("changing", first.failure)
    if (first.success.length === 0) return remember(after)
    if (first.success.some(({ errno }) => !disagreements.has(errno)))
      return refused("changing", first.success)

    // Someone else changed the table: look at what is there, and change that.
    const read = readAll()
    if (Result.isFailure(read)) {
      if (read.failure.errno !== C.ENOENT) return failed("changing", read.failure)
      known.clear()
      return change.add.length === 0 ? undefined : gone("changing")
    }
    learn(rulesOf(read.success).rules)
    const second = applyOnce(after)
    if (Result.isFailure(second)) return failed("changing", second.failure)
    return second.success.length === 0 ? remember(after) : refused("changing", second.success)
  }

  const checkFit = (rules: ReadonlyArray<Rule>): FirewallError | undefined => {
    for (const rule of rules) {
      const reason = unfit(rule)
      if (reason !== undefined)
        return new FirewallError({ reason: "Failed", operation: ruleText(rule), detail: reason })
    }
    return undefined
  }

  /** One batch of the elements that differ; `false` where the table is not there as it should be. */
  const replaceElements = (rules: ReadonlyArray<Rule>): boolean => {
    if (Result.getOrUndefined(standing()) !== "intact") return false
    const read = readAll()
    if (Result.isFailure(read)) return false
    const wanted = rules.flatMap(elementsOf)
    const removed = missing(read.success, wanted)
    const added = missing(wanted, read.success)
    if (removed.length + added.length > 0) {
      const outcome = transact(removed, added)
      if (Result.isFailure(outcome) || outcome.success.length > 0) return false
    }
    learn(rules)
    loaded = true
    return true
  }

  const permits = yield* Semaphore.make(1)

  const service = Firewall.of({
    apply: (change) =>
      permits.withPermit(
        Effect.suspend(() => {
          const wrong = checkFit(change.add)
          if (wrong !== undefined) return Effect.fail(wrong)
          if (!loaded) return load(change.add)
          const error = apply(change)
          return error === undefined ? Effect.void : Effect.fail(error)
        })
      ),
    replace: (rules) =>
      permits.withPermit(
        Effect.suspend(() => {
          const wrong = checkFit(rules)
          if (wrong !== undefined) return Effect.fail(wrong)
          const last = [...new Map(rules.map((rule) => [keyOf(rule), rule])).values()]
          return replaceElements(last) ? Effect.void : load(last)
        })
      ),
    read: permits.withPermit(
      Effect.suspend(() => {
        const read = readAll()
        if (Result.isSuccess(read)) return Effect.succeed(rulesOf(read.success))
        return Effect.fail(
          read.failure.errno === C.ENOENT ? gone("reading") : failed("reading", read.failure)
        )
      })
    ),
    check: permits.withPermit(
      Effect.suspend(() => {
        const now = readGeneration(netlink)
        if (Result.isSuccess(now) && now.success === generation) return Effect.void
        const state = standing()
        if (Result.isFailure(state)) return Effect.fail(failed("checking", state.failure))
        if (state.success !== "intact") return Effect.fail(gone("checking"))
        generation = Result.getOrElse(now, () => -1)
        return Effect.void
      })
    ),
    remove: permits.withPermit(
      Effect.suspend(() => {
        const outcome = netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => writeDeleteTable(batch, table.name))
        if (Result.isFailure(outcome)) return Effect.fail(failed("removing", outcome.failure))
        const refusals = outcome.success.filter(({ errno }) => errno !== C.ENOENT)
        if (refusals.length > 0) return Effect.fail(refused("removing", refusals))
        known.clear()
        loaded = true
        return Effect.void
      })
    )
  })

  const state = yield* Effect.suspend(() =>
    Result.match(standing(), {
      onFailure: (errno) => Effect.fail(failed("reading", errno)),
      onSuccess: Effect.succeed
    })
  )
  if (state === "absent") yield* load([])
  if (state === "intact") {
    const read = readAll()
    if (Result.isSuccess(read)) learn(rulesOf(read.success).rules)
    loaded = Result.isSuccess(read)
  }
  return service
})

/** As `ruleKey`, but without the zone of a link-local address, which no key of the table holds. */
const keyOf = (rule: Rule): string =>
  rule.host.zone === ""
    ? ruleKey(rule)
    : ruleKey({ ...rule, host: { ...rule.host, key: bare(rule.host.key) } })

const bare = (key: string): string => key.slice(0, key.indexOf("%"))

/** The elements that are not, or not with the same data, among the others. */
const missing = <A extends Element>(
  elements: ReadonlyArray<A>,
  others: ReadonlyArray<Element>
): ReadonlyArray<A> => {
  if (elements.length === 0 || others.length === 0) return elements
  const present = new Map(others.map((element) => [elementKey(element), element]))
  return elements.filter((element) => {
    const other = present.get(elementKey(element))
    return other === undefined || !sameData(element, other)
  })
}

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
    case C.ENOENT:
      return "Gone"
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
