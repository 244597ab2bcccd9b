/**
 * Claims what a call wants before the mapper takes its lock, since etcd may take its time: each exact port in the order
 * of the cells, a port of each range, and enough ephemeral ports.
 */
import { Clock, Effect } from "effect"
import { ClusterUnavailable, PortAllocated, PortsExhausted } from "../ports/PortAllocator.ts"
import type { Claimed, Wanted } from "../ports/PortClaims.ts"
import type { Frontend } from "../ports/PortTable.ts"
import type { GroupsError } from "../protocol/Driver.ts"
import { frontendText, type PortRequest, rangeFrontendText } from "../protocol/PortBinding.ts"
import { type Hunting, takeBlocks } from "./Blocks.ts"
import { cellOf, claimOf, excluderOf, holderText, itemOf, portClaim } from "./Cells.ts"
import type { CellState, HeldClaim, Session } from "./ClusterState.ts"
import type { ClusterError, LeaseLost } from "./Etcd.ts"
import { keyOf, type OwnPort, serviceKeyOf } from "./Ledger.ts"
import {
  claimIn,
  excluderHere,
  giveBack,
  type Member,
  mayGrant,
  mayGrantBy,
  type Ungranted,
  ungranted,
  untilGranting,
  whyNot
} from "./Member.ts"
import { byCell } from "./Membership.ts"

/** How long a call waits for the cluster, and how much longer for each further cell: a range has up to 313. */
const patience = { millis: 3000, cellMillis: 20 }

/** Another host has the port. */
interface Excluded {
  readonly _tag: "Excluded"
  readonly group: number
  readonly frontend: string
  readonly held: HeldClaim
}

type Refusal = Excluded | Ungranted | ClusterError | LeaseLost

/** An exact port of a group; `frontend` is how errors name it. */
interface Exact extends Claimed {
  readonly group: number
  readonly frontend: string
}

/** A call under way. */
interface Call {
  readonly wanted: ReadonlyArray<Wanted>
  /** What must not be given back while the call is under way. */
  readonly tickets: Set<OwnPort>
  /** The ports of each ranged group that were tried. */
  readonly tried: Map<number, Set<number>>
}

/** See `PortClaims`. */
export const claimDuring = <A, E>(
  member: Member,
  hunting: Hunting,
  wanted: ReadonlyArray<Wanted>,
  attempt: Effect.Effect<A, GroupsError<E>>
): Effect.Effect<A, GroupsError<E | PortAllocated | ClusterUnavailable>> =>
  Clock.clockWith((clock) => {
    const call: Call = { wanted, tickets: new Set(), tried: new Map() }
    const attempts = attemptWith(member, hunting, call, attempt)
    return hasEnough(member, wanted) && mayGrantBy(clock, member)
      ? attempts
      : Effect.ensuring(
          Effect.andThen(bounded(member, wanted, claimFirst(member, hunting, call)), attempts),
          Effect.sync(() => member.ledger.drop(call.tickets))
        )
  })

/** Most calls for ephemeral ports find them in the host's blocks. */
const hasEnough = ({ ledger }: Member, wanted: ReadonlyArray<Wanted>): boolean =>
  ledger.free >= wanted.length && wanted.every(({ ports }) => ports._tag === "Ephemeral")

/** See `PortClaims`. One at a time, so that a port that is not free doesn't keep the others. */
export const reclaim = (member: Member, wanted: ReadonlyArray<Wanted>): Effect.Effect<void> =>
  Effect.gen(function* () {
    const { ledger, session } = member
    if (session === undefined || !(yield* mayGrant(member))) return
    // One at a time fails while the cluster doesn't answer.
    const isAway = () => member.trouble !== undefined
    const missing = exactOf(wanted).filter(
      (each) => !ledger.covers(each) && excluderHere(member, each) === undefined
    )
    const call: Call = { wanted, tickets: new Set(), tried: new Map() }
    yield* Effect.ensuring(
      Effect.forEach(
        missing,
        (each) => (isAway() ? Effect.void : Effect.ignore(claimExact(member, session, call, [each]))),
        { discard: true }
      ),
      Effect.sync(() => ledger.drop(call.tickets))
    )
  })

const exactOf = (wanted: ReadonlyArray<Wanted>): ReadonlyArray<Exact> => {
  const found = new Map<string, Exact>()
  for (const { group, frontends, ports, claimant } of wanted)
    for (const { protocol, host } of ports._tag === "Exact" ? frontends : []) {
      const { port } = ports as Extract<PortRequest, { readonly _tag: "Exact" }>
      const exact = { protocol, port, claimant, group, frontend: frontendText({ protocol, host, port }) }
      const key = serviceKeyOf(exact, claimant.service)
      if (!found.has(key)) found.set(key, exact)
    }
  return [...found.values()]
}

/** Everything that is known to be needed. */
const claimFirst = Effect.fnUntraced(function* (
  member: Member,
  hunting: Hunting,
  call: Call
): Effect.fn.Return<void, Refusal> {
  const { ledger } = member
  const exact = exactOf(call.wanted)
  const missing = exact.filter((each) => !ledger.covers(each))
  for (const each of exact) if (ledger.covers(each)) ledger.ticket(each, call.tickets)
  const others = call.wanted.filter(({ ports }) => ports._tag !== "Exact")
  // What is mapped already is answered whatever becomes of the cluster, and at a start once that is known.
  if (missing.length + others.length === 0) {
    if (member.trouble === undefined)
      yield* Effect.ignore(Effect.timeoutOption(untilGranting(member), patience.millis / 2))
    return
  }
  const session = yield* untilGranting(member)
  for (const part of byCell(missing)) yield* claimExact(member, session, call, part)
  for (const group of others) if (group.ports._tag === "Range") yield* claimNext(member, session, call, group)
  const ephemeral = others.filter(({ ports }) => ports._tag === "Ephemeral").length
  if (ephemeral > 0) yield* takeBlocks(member, session, hunting, () => ledger.free >= ephemeral)
})

/** Attempts again with another port of a range as long as the claimed ones turn out to be taken on this host. */
const attemptWith = <A, E>(
  member: Member,
  hunting: Hunting,
  call: Call,
  attempt: Effect.Effect<A, GroupsError<E>>
): Effect.Effect<A, GroupsError<E | PortAllocated | ClusterUnavailable>> =>
  Effect.catch(attempt, (failed) => {
    const group = call.wanted.find((each) => each.group === failed.group)
    if (!(failed.error instanceof PortsExhausted) || group === undefined) return Effect.fail(failed)
    return Effect.flatMap(bounded(member, [group], claimMore(member, hunting, call, group)), (isMore) =>
      isMore ? attemptWith(member, hunting, call, attempt) : Effect.fail(failed)
    )
  })

const claimMore = Effect.fnUntraced(function* (
  member: Member,
  hunting: Hunting,
  call: Call,
  group: Wanted
): Effect.fn.Return<boolean, Refusal> {
  const session = yield* untilGranting(member)
  if (group.ports._tag === "Range") return yield* claimNext(member, session, call, group)
  const { ledger } = member
  const before = ledger.blocks().length
  return yield* takeBlocks(member, session, hunting, () => ledger.blocks().length > before)
})

/** Claims ports of one cell and protocol, all or none. */
const claimExact = Effect.fnUntraced(function* (
  member: Member,
  session: Session,
  call: Call,
  part: ReadonlyArray<Exact>
): Effect.fn.Return<void, Refusal> {
  const { ledger, options } = member
  const [first] = part
  if (first === undefined) return
  const nowMillis = yield* Clock.currentTimeMillis
  const names = part.map((each) => claimOf(options.host, portClaim(each, each.claimant, nowMillis)))
  // The same port, which this host gave up a moment ago.
  if (ledger.returning.some(({ name }) => names.some((each) => each.name === name))) yield* giveBack(member)
  const decide = (state: CellState) =>
    Effect.suspend(() => {
      const missing = part.filter((each) => !ledger.covers(each))
      for (const each of missing) {
        const held = excluderOf(state, options.host, each)
        if (held !== undefined) return Effect.fail(excluded(each, held))
      }
      return Effect.succeed(names.filter((_, index) => missing.includes(part[index] as Exact)))
    })
  yield* claimIn(member, session, cellOf(first.port), decide, (claims) => {
    for (const held of claims) {
      const item = itemOf(held)
      const each = item._tag === "Port" ? part.find((one) => keyOf(one) === keyOf(item)) : undefined
      if (each === undefined) continue
      ledger.add(each, held)
      ledger.ticket(each, call.tickets)
    }
  })
  for (const each of part) ledger.ticket(each, call.tickets)
  // The answer may have come after the lease's end.
  if (!(yield* mayGrant(member))) return yield* Effect.fail(ungranted(whyNot(member)))
})

/** Claims the next port of the range that is free as far as is known; returns whether there was one. */
const claimNext = Effect.fnUntraced(function* (
  member: Member,
  session: Session,
  call: Call,
  { group, frontends, ports, claimant }: Wanted
): Effect.fn.Return<boolean, Refusal> {
  if (ports._tag !== "Range") return false
  const { ledger } = member
  const tried = call.tried.get(group) ?? new Set<number>()
  call.tried.set(group, tried)
  const protocols = [...new Map(frontends.map((each) => [each.protocol, each])).values()]
  const ofOthers = new Set([...call.tickets].map(({ port }) => port))
  for (let port = ports.first; port <= ports.last; port++) {
    if (tried.has(port) || ofOthers.has(port)) continue
    if (protocols.some(({ protocol }) => ledger.isReserved({ protocol, port }))) continue
    tried.add(port)
    const part = protocols.map(({ protocol, host }) => ({
      ...{ protocol, port, claimant, group },
      frontend: frontendText({ protocol, host, port })
    }))
    if (part.some((each) => excluderHere(member, each) !== undefined)) continue
    const claimed = yield* Effect.result(claimExact(member, session, call, part))
    if (claimed._tag === "Success") return true
    if (claimed.failure._tag !== "Excluded") return yield* Effect.fail(claimed.failure)
  }
  return false
})

const excluded = ({ group, frontend }: Exact, held: HeldClaim): Excluded => ({
  _tag: "Excluded",
  group,
  frontend,
  held
})

/** Fails in time, with an error that names one of the groups. */
const bounded = <A>(
  member: Member,
  wanted: ReadonlyArray<Wanted>,
  claiming: Effect.Effect<A, Refusal>
): Effect.Effect<A, GroupsError<PortAllocated | ClusterUnavailable>> =>
  claiming.pipe(
    Effect.timeoutOrElse({
      duration: patience.millis + patience.cellMillis * byCell(exactOf(wanted)).length,
      orElse: () => Effect.fail(ungranted(whyNot(member)))
    }),
    Effect.mapError((refusal) => {
      const { group, frontends: [frontend] = [], ports = ephemeral } = wanted[0] ?? {}
      return refusal._tag === "Excluded"
        ? { group: refusal.group, error: allocatedTo(refusal.frontend, refusal.held) }
        : { group, error: unavailable(frontend, ports, detailOf(refusal)) }
    })
  )

const ephemeral: PortRequest = { _tag: "Ephemeral" }

export const allocatedTo = (frontend: string, held: HeldClaim): PortAllocated =>
  new PortAllocated({ frontend, hint: ` (${holderText(held)})` })

const detailOf = (refusal: Ungranted | ClusterError | LeaseLost): string =>
  refusal._tag === "Ungranted" ? refusal.detail : refusal.message

export const unavailable = (
  frontend: Frontend | undefined,
  ports: PortRequest,
  detail: string
): ClusterUnavailable => {
  if (frontend === undefined) return new ClusterUnavailable({ frontend: "", detail })
  const { protocol, host } = frontend
  const text =
    ports._tag === "Range"
      ? rangeFrontendText(protocol, host, ports)
      : frontendText({ protocol, host, port: ports._tag === "Exact" ? ports.port : 0 })
  return new ClusterUnavailable({ frontend: text, detail })
}
