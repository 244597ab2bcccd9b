/**
 * `Firewall` as a table of nftables, changed by netlink on a socket kept open. The table outlives the process that
 * loaded it.
 */
import { Effect, Layer, Result } from "effect"
import {
  type Change,
  Firewall,
  FirewallError,
  type RefusedFlow,
  type Rule,
  ruleKey,
  ruleText,
  withoutRules
} from "../../../src/firewall/Firewall.ts"
import { libc } from "../Libc.ts"
import { joinMarks, liveMark, type MarkConflict } from "./LiveMark.ts"
import { makeNamespaceLock, type NamespaceBusy, type NamespaceLock } from "./NamespaceLock.ts"
import { openTable } from "./NftTable.ts"
import { type CountedElement, elementsOf, refusedElement, rulesOf, unfit } from "./RuleElements.ts"
import { type AcceptMark, makeTable, markText } from "./Ruleset.ts"
import type { ForeignChange } from "./TableEvents.ts"
import { type Element, elementKey, sameData, tellingSets } from "./TableSets.ts"

export interface TableChoice {
  readonly acceptMark?: AcceptMark | undefined
  /** The name of the table, in family inet. */
  readonly table?: string | undefined
}

export interface Options extends TableChoice {
  /** The lock on this table, if it must outlive this layer; by default the layer takes and releases one. */
  readonly lock?: NamespaceLock | undefined
}

/** Adopts a table of an earlier process as it is; the first change replaces a table that differs. */
export const layer = (
  options: Options = {},
  load = libc
): Layer.Layer<Firewall, FirewallError | MarkConflict | NamespaceBusy> =>
  Layer.effect(Firewall, make(options, load))

const make = Effect.fnUntraced(function* (
  { acceptMark, table: name = "portmapper", lock }: Options,
  loadLibc: typeof libc
) {
  const { take } = lock ?? (yield* makeNamespaceLock(name, loadLibc))
  const netlink = yield* take
  const live = yield* Effect.fromResult(liveMark(netlink, name))
  const mark = yield* Effect.fromResult(joinMarks(acceptMark, live))
  if (mark !== undefined && (acceptMark === undefined || markText(mark) !== markText(acceptMark)))
    yield* Effect.logInfo(`marking what is redirected ${markText(mark)}: published ports rest on it`)
  const table = yield* openTable(makeTable({ name, acceptMark: mark }), loadLibc(), netlink)

  /**
   * The rules in the table, from which a change computes what it replaces. `undefined` before this process has read
   * the table, and after an error with an unknown outcome.
   */
  let known: Map<string, Rule> | undefined
  /**
   * Whether the table has our definition, or had it before another process changed it; until then, a change loads
   * it whole.
   */
  let ours = false
  /** The generation of the ruleset in which our table was last seen intact. */
  let checked: number | undefined
  /** What another process changed, until the table is verified or replaced. */
  let changed: ForeignChange | undefined

  const learn = (rules: Iterable<Rule>): Map<string, Rule> => {
    known = new Map()
    for (const rule of rules) known.set(keyOf(rule), rule)
    return known
  }

  const load = (rules: ReadonlyArray<Rule>): Result.Result<void, FirewallError> => {
    known = undefined
    return Result.map(table.load(rules.flatMap(elementsOf)), () => {
      learn(rules)
      ours = true
      changed = undefined
    })
  }

  const change = (before: Map<string, Rule>, after: ReadonlyMap<string, Rule | undefined>) => {
    const removed: Array<Element> = []
    const added: Array<Element> = []
    const ofServices: Array<Rule> = []
    for (const [key, rule] of after) {
      const replaced = before.get(key)
      const elements = rule === undefined ? [] : elementsOf(rule)
      if (replaced !== undefined) removed.push(...missing(elementsOf(replaced), elements))
      if (replaced !== undefined && isOfService(replaced)) ofServices.push(replaced)
      added.push(...elements)
    }
    const outcome = table.transact(
      ofServices.length === 0
        ? removed
        : missing(distinct(removed), [...added, ...elementsOfOthers(ofServices, before, after)]),
      added
    )
    if (Result.isFailure(outcome)) known = undefined
    else if (outcome.success === "done")
      for (const [key, rule] of after)
        if (rule === undefined) before.delete(key)
        else before.set(key, rule)
    return outcome
  }

  const apply = ({ add, remove }: Change): Result.Result<unknown, FirewallError> => {
    const after = new Map<string, Rule | undefined>()
    for (const rule of remove) after.set(keyOf(rule), undefined)
    for (const rule of add) after.set(keyOf(rule), rule)
    if (known !== undefined) {
      const outcome = change(known, after)
      if (Result.isFailure(outcome) || outcome.success === "done") return outcome
    }
    // The rules are unknown, or another process changed the table: read it, and change what is there.
    known = undefined
    const there = table.read("changing")
    if (Result.isFailure(there)) {
      const nothingThere = there.failure.reason === "Gone" && add.length === 0
      return nothingThere ? Result.void : there
    }
    const rules = new Map(rulesOf(there.success).rules.map((rule) => [keyOf(rule), rule]))
    for (const [key, rule] of after)
      if (rule === undefined) rules.delete(key)
      else rules.set(key, rule)
    const outcome = settle(there.success, [...rules.values()])
    if (Result.isFailure(outcome)) return outcome
    return outcome.success === undefined ? Result.fail(table.gone("changing")) : Result.void
  }

  /**
   * Turns the elements there into those of these rules, in one batch of what differs. Returns the removed ones;
   * `undefined` if the kernel applied nothing, since the table has changed meanwhile.
   */
  const settle = (there: ReadonlyArray<CountedElement>, rules: ReadonlyArray<Rule>) => {
    const wanted = rules.flatMap(elementsOf)
    const removed = missing(there, wanted)
    return Result.map(table.transact(removed, missing(wanted, there)), (outcome) => {
      if (outcome !== "done") return undefined
      learn(rules)
      return removed
    })
  }

  /** Returns the removed rules; `undefined` if the table is missing or differs, or the kernel refuses the batch. */
  const replaceElements = (rules: ReadonlyArray<Rule>): ReadonlyArray<Rule> | undefined => {
    if (changed === "definition") return undefined
    if (Result.getOrUndefined(table.standing("replacing")) !== "intact") return undefined
    const there = table.read("replacing")
    if (Result.isFailure(there)) return undefined
    const removed = Result.getOrUndefined(settle(there.success, rules))
    if (removed === undefined) return undefined
    ours = true
    changed = undefined
    return removed.length === 0 ? [] : withoutRules(rulesOf(removed).rules, rules)
  }

  const hasKnownElements = (): boolean => {
    const there = Result.getOrUndefined(table.read("checking"))
    const wanted = known && [...known.values()].flatMap(elementsOf)
    return there !== undefined && there.length === wanted?.length && missing(wanted, there).length === 0
  }

  const check = (): Result.Result<void, FirewallError> => {
    const foreign = table.foreignChange()
    if (changed !== "definition") changed = foreign ?? changed
    const generation = table.generation()
    if (changed === undefined && generation !== undefined && generation === checked) return Result.void
    const standing = table.standing("checking")
    if (Result.isFailure(standing)) return Result.fail(standing.failure)
    if (standing.success !== "intact") return Result.fail(table.gone("checking"))
    if (changed === "elements" && hasKnownElements()) changed = undefined
    if (changed !== undefined) return Result.fail(table.changed("checking"))
    checked = generation
    return Result.void
  }

  const remove = (): Result.Result<void, FirewallError> => {
    known = undefined
    // As after a removal by another process, only `replace` restores the table.
    ours = true
    return table.remove()
  }

  const refuse = (flows: ReadonlyArray<RefusedFlow>): Result.Result<void, FirewallError> =>
    Result.flatMap(table.transact([], flows.map(refusedElement)), (outcome) =>
      outcome === "done" ? Result.void : Result.fail(table.gone("refusing flows in"))
    )

  const standing = yield* Effect.fromResult(table.standing("reading"))
  if (standing === "absent") yield* Effect.fromResult(load([]))
  // The first change that needs the elements reads them: most often it replaces the whole table.
  if (standing === "intact") ours = true

  /** Runs as one synchronous step, so no other change comes in between. */
  const sync = <A>(act: () => Result.Result<A, FirewallError>): Effect.Effect<A, FirewallError> =>
    Effect.suspend(() => Effect.fromResult(act()))

  return Firewall.of({
    apply: (change) =>
      Effect.asVoid(sync<unknown>(() => misfit(change.add) ?? (ours ? apply(change) : load(change.add)))),
    replace: (rules) =>
      sync(() => {
        const wrong = misfit(rules)
        if (wrong !== undefined) return wrong
        const last = [...new Map(rules.map((rule) => [keyOf(rule), rule])).values()]
        const removed = replaceElements(last)
        return removed === undefined ? Result.map(load(last), () => []) : Result.succeed(removed)
      }),
    read: sync(() => Result.map(table.read("reading", tellingSets), rulesOf)),
    refuse: (flows) => sync(() => refuse(flows)),
    check: sync(check),
    remove: sync(remove)
  })
})

const distinct = (elements: ReadonlyArray<Element>): ReadonlyArray<Element> => [
  ...new Map(elements.map((element) => [elementKey(element), element])).values()
]

const isOfService = (rule: Rule): boolean => rule._tag === "Redirect" && rule.share !== undefined

/** The elements of the services' other backends, which share the frontend's allow-list. */
const elementsOfOthers = (
  rules: ReadonlyArray<Rule>,
  before: ReadonlyMap<string, Rule>,
  after: ReadonlyMap<string, unknown>
): ReadonlyArray<Element> => {
  const frontendOf = ({ protocol, host, port }: Rule) => `${protocol} ${host.key} ${port}`
  const frontends = new Set(rules.map(frontendOf))
  return [...before].flatMap(([key, rule]) =>
    isOfService(rule) && !after.has(key) && frontends.has(frontendOf(rule)) ? elementsOf(rule) : []
  )
}

/** As `ruleKey`, but without the zone of a link-local address, since no key of the table contains it. */
const keyOf = (rule: Rule): string => {
  const { host } = rule
  if (host.zone === "") return ruleKey(rule)
  return ruleKey({ ...rule, host: { ...host, key: host.key.slice(0, host.key.indexOf("%")) } })
}

const misfit = (rules: ReadonlyArray<Rule>): Result.Result<never, FirewallError> | undefined => {
  for (const rule of rules) {
    const detail = unfit(rule)
    if (detail !== undefined)
      return Result.fail(new FirewallError({ reason: "Failed", operation: ruleText(rule), detail }))
  }
  return undefined
}

/** The elements that are missing from the others, or have other data there. */
const missing = <E extends Element>(
  elements: ReadonlyArray<E>,
  others: ReadonlyArray<Element>
): ReadonlyArray<E> => {
  if (elements.length === 0 || others.length === 0) return elements
  const present = new Map(others.map((element) => [elementKey(element), element]))
  return elements.filter((element) => {
    const other = present.get(elementKey(element))
    return other === undefined || !sameData(element, other)
  })
}
