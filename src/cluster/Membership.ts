/**
 * Keeps this host a member: takes its place, proves what it still holds, renews its lease, and begins again where that
 * has ended. What it serves goes on meanwhile, until it is known that another host has it.
 */
import { Clock, Duration, Effect, Queue, Random, Result, Stream } from "effect"
import type { Claimed } from "../ports/PortClaims.ts"
import { cellOf, claimOf, excluderOf, itemOf, portClaim } from "./Cells.ts"
import type { CellState, ClusterEvent, HeldClaim, Session, Snapshot } from "./ClusterState.ts"
import type { ClusterError, LeaseLost } from "./Etcd.ts"
import { keyOf, type OwnPort, serviceKeyOf } from "./Ledger.ts"
import { betweenClaims, claimIn, giveBack, type Member, mayGrant, noting } from "./Member.ts"

/** Never ends. */
export const keepMembership = (member: Member): Effect.Effect<never> =>
  Effect.forever(
    Effect.gen(function* () {
      const session = yield* join(member)
      yield* Effect.raceFirst(proving(member, session), renewing(member, session))
      yield* member.granting.close
      Object.assign(member, { session: undefined, span: undefined, isProven: false })
      yield* Effect.logWarning(
        `the lease of host ${session.host} in the cluster has ended; what it serves goes on while it joins again`
      )
    })
  )

/** Follows the cluster. Never ends. */
export const follow = (member: Member): Effect.Effect<void> =>
  Stream.runForEach(member.store.watch, (event) =>
    Effect.map(Clock.currentTimeMillis, (nowMillis) => {
      const { replica } = member
      const before = replica.revision
      if (event._tag === "Interrupted") member.interruptedMillis ??= nowMillis
      else member.interruptedMillis = undefined
      replica.apply(event)
      // Also during a proof, which may have read it before.
      if (isDoubtful(member, event, before)) Queue.offerUnsafe(member.doubt, undefined)
    })
  )

/** Whether an event says that this host does not hold what it believes to hold. */
const isDoubtful = ({ ledger, replica }: Member, event: ClusterEvent, before: number): boolean => {
  switch (event._tag) {
    case "Interrupted":
      return false
    case "Snapshot": {
      if (event.revision < before) return true
      const seen = new Set([...replica.claims()].map(({ name, revision }) => `${revision} ${name}`))
      return [...ledger.ports(), ...ledger.blocks()].some(
        ({ claim }) =>
          claim !== undefined &&
          claim.revision <= event.revision &&
          !seen.has(`${claim.revision} ${claim.name}`)
      )
    }
    case "Changed":
      return event.changes.some((change) => {
        if (change._tag !== "Released") return false
        const epoch = ledger.epochOf(change.claim.name)
        return epoch !== undefined && epoch < change.revision
      })
  }
}

/** Tries until it has a session. */
const join = Effect.fnUntraced(function* (member: Member): Effect.fn.Return<Session> {
  const { host, identity, address, ttl } = member.options
  let logged = ""
  for (let attempt = 0; ; attempt++) {
    const opened = yield* Effect.result(noting(member, member.store.open({ host, identity, address, ttl })))
    if (Result.isSuccess(opened)) {
      Object.assign(member, opened.success)
      return opened.success.session
    }
    const { message } = opened.failure
    if (message !== logged) yield* Effect.logWarning(`host ${host} can't join the cluster: ${message}`)
    logged = message
    yield* pause(Math.min(250 * 2 ** attempt, longestPauseMillis))
  }
})

const longestPauseMillis = 5000

/** About so long: hosts that lost the cluster at once don't come back at once. */
const pause = (millis: number) =>
  Effect.flatMap(Random.nextBetween(0.5, 1), (part) => Effect.sleep(millis * part))

/** Proves what this host holds, now and whenever that is in doubt. Returns once the lease has ended. */
const proving = Effect.fnUntraced(function* (member: Member, session: Session): Effect.fn.Return<void> {
  while (true) {
    member.isProven = false
    for (let attempt = 0; !member.isProven; attempt++) {
      const proved = yield* Effect.result(prove(member, session))
      if (Result.isSuccess(proved)) member.isProven = true
      else if (proved.failure._tag === "LeaseLost") return
      else yield* pause(Math.min(250 * 2 ** attempt, longestPauseMillis))
    }
    if (yield* mayGrant(member)) yield* member.granting.open
    yield* Effect.ignore(giveBack(member))
    yield* Queue.take(member.doubt)
    yield* Effect.logWarning(
      `host ${session.host} looks again which ports of the cluster are its own: claims of it are gone`
    )
  }
})

/** Renews the lease, and gives back what could not be before, or is not needed. Returns once the lease has ended. */
const renewing = Effect.fnUntraced(function* (member: Member, session: Session): Effect.fn.Return<void> {
  const ttl = Duration.toMillis(member.options.ttl)
  let failed = ""
  while (true) {
    const due = pause(failed === "" ? ttl / 3 : ttl / 10)
    // Not again and again while etcd does not answer.
    yield* failed === "" ? Effect.raceFirst(due, Queue.take(member.renewal)) : due
    const renewed = yield* Effect.result(noting(member, member.store.renew(session)))
    if (Result.isSuccess(renewed)) {
      member.span = renewed.success
      if (yield* mayGrant(member)) yield* member.granting.open
      if (failed !== "") yield* Effect.logInfo("the cluster answers again")
      failed = ""
      yield* sweep(member)
      yield* Effect.ignore(giveBack(member))
    } else {
      if (renewed.failure._tag === "LeaseLost") return
      const { message } = renewed.failure
      if (message !== failed)
        yield* Effect.logWarning(`the lease of host ${session.host} can't be renewed: ${message}`)
      failed = message
    }
  }
})

/**
 * Owes the claims of this host that its ledger doesn't have: made by a process that was killed before the answer came, and
 * carried out after its successor had looked.
 */
const sweep = (member: Member): Effect.Effect<void> => {
  const { ledger, replica } = member
  const unknown = () => (member.isProven ? unknownOf(member, replica.claims()) : [])
  return Effect.suspend(() =>
    unknown().length === 0
      ? Effect.void
      : betweenClaims(
          member,
          Effect.sync(() => ledger.owe(unknown()))
        )
  )
}

/** Claims of this host that its ledger does not have. */
const unknownOf = ({ ledger, options }: Member, claims: Iterable<HeldClaim>): ReadonlyArray<HeldClaim> =>
  [...claims].filter(({ host, name, revision }) => host === options.host && ledger.epochOf(name) !== revision)

/** Compares the ledger with the store, and claims again what is missing. What another host has by now is lost. */
const prove = Effect.fnUntraced(function* (
  member: Member,
  session: Session
): Effect.fn.Return<void, ClusterError | LeaseLost> {
  const missing = yield* betweenClaims(
    member,
    Effect.map(noting(member, member.store.readAll), (snapshot) => compare(member, session, snapshot))
  )
  for (const part of byCell(missing)) yield* claimAgain(member, session, part)
})

/** Brings the ledger up to date. Returns the ports that are not claimed any more. */
const compare = (
  member: Member,
  { lease }: Session,
  { cells, revision }: Snapshot
): ReadonlyArray<OwnPort> => {
  const { ledger, replica, options, store } = member
  for (const cell of cells) replica.put({ ...cell, readAt: revision })
  // The watch may be ahead of it.
  const there = cells.flatMap(({ cell }) => replica.cell(cell).claims)
  // Any other claim of this host may go at any time.
  const own = there.filter(
    (held) =>
      held.host === options.host && held.lease === lease && !ledger.owes(held) && !store.isDoubtful(held)
  )
  const ports = new Map<string, HeldClaim>()
  for (const held of own) {
    const item = itemOf(held)
    if (item._tag === "Port") ports.set(serviceKeyOf(item, item.service), held)
  }
  const claimOn = (port: OwnPort) => ports.get(serviceKeyOf(port, port.claimant.service))
  for (const block of ledger.blocks()) {
    if (own.some(({ name, revision }) => name === block.claim.name && revision === block.claim.revision))
      continue
    ledger.removeBlock(block)
    for (const { protocol, port, claimant } of ledger.reservedIn(block))
      ledger.add({ protocol, port, claimant }, undefined)
  }
  for (const held of own) {
    const item = itemOf(held)
    if (item._tag !== "Block" || ledger.epochOf(held.name) !== undefined) continue
    // Ephemeral ports of an earlier life are covered by their block. One without any it may have been giving back.
    const covered = ledger
      .ports()
      .filter(
        (at) =>
          item.first <= at.port &&
          at.port <= item.last &&
          at.claimant.service === undefined &&
          claimOn(at) === undefined
      )
    if (covered.length > 0) ledger.addBlock(item, held)
    for (const at of covered) ledger.remove(at)
  }
  const missing: Array<OwnPort> = []
  for (const port of ledger.ports()) {
    port.claim = claimOn(port)
    if (port.claim === undefined) missing.push(port)
  }
  // Also claims of calls that a kill cut short before they were recorded.
  ledger.owe(unknownOf(member, there))
  return missing
}

/** In the order of the cells; at most 64 ports each, since a transaction has a limit. */
export const byCell = <P extends Claimed>(ports: ReadonlyArray<P>): ReadonlyArray<ReadonlyArray<P>> =>
  [...Map.groupBy(ports, ({ protocol, port }) => `${cellOf(port)} ${protocol}`)]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, part]) => part)

const claimAgain = Effect.fnUntraced(function* (
  member: Member,
  session: Session,
  part: ReadonlyArray<OwnPort>
): Effect.fn.Return<void, ClusterError | LeaseLost> {
  const { ledger, options, lost } = member
  const [first] = part
  if (first === undefined) return
  // Owed under the same names, if a service became none or the other way round.
  yield* giveBack(member)
  const nowMillis = yield* Clock.currentTimeMillis
  let taken: ReadonlyArray<OwnPort> = []
  const decide = (state: CellState) =>
    Effect.sync(() => {
      const wanted = part.filter((port) => ledger.has(port))
      taken = wanted.filter((port) => excluderOf(state, options.host, port) !== undefined)
      return wanted
        .filter((port) => !taken.includes(port))
        .map((port) => claimOf(options.host, portClaim(port, port.claimant, nowMillis)))
    })
  yield* claimIn(member, session, cellOf(first.port), decide, (claims) => {
    for (const held of claims) {
      const item = itemOf(held)
      const port = item._tag === "Port" ? part.find((each) => keyOf(each) === keyOf(item)) : undefined
      if (port !== undefined && ledger.has(port)) port.claim = held
      // It was unmapped meanwhile.
      else ledger.owe([held])
    }
  })
  for (const port of taken) {
    ledger.remove(port)
    yield* Queue.offer(lost, { protocol: port.protocol, port: port.port })
  }
})
