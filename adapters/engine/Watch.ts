/**
 * Publishes what an Engine's containers ask for, and keeps to it: the Engine is listened to, and after each change, each lost
 * connection and now and then what is mapped is made what is wanted. What that is, is `Wanted`'s and `Changes`'s to say; here
 * it is done. One failure never keeps anything else from being published.
 */
import { Cause, Effect, Exit, Option, Queue, Result, Schema, type Scope, Semaphore } from "effect"
import {
  CurrentOwner,
  Driver,
  type DriverError,
  type Follow as FollowRequest,
  groupsAtOnce,
  type ListedMapping,
  ListedOwner
} from "../../src/protocol/Driver.ts"
import { mapGroup, mapGroupsTogether, unmapBindings } from "../../src/protocol/Operations.ts"
import {
  frontendText,
  type PortBinding,
  type Release,
  type ReleasedBinding
} from "../../src/protocol/PortBinding.ts"
import { publishText } from "../../src/protocol/PublishSyntax.ts"
import { type Ask, type Changes, changesFor, type Held, heldFrom, signatureOf } from "./Changes.ts"
import { type Container, Engine, type EngineError, type EngineEvent } from "./Engine.ts"
import { followKey, renamed, withoutPorts } from "./Follows.ts"
import { makeImageLabels } from "./ImageLabels.ts"
import { listen } from "./Listen.ts"
import { listedProblem, makeProblems, problemOf, waitsFor } from "./Problems.ts"
import {
  asksByLabel,
  type Follow,
  findContainer,
  type Problem,
  shortId,
  type Want,
  type Wanted,
  wantedByFollow,
  wantedByLabels,
  watchOwner
} from "./Wanted.ts"
import { type RecordError, WatchRecord } from "./WatchRecord.ts"

export interface WatchOptions {
  /** Whether labels that came with an image count as the container's own. */
  readonly trustImageLabels: boolean
  /** Run each time that the Engine was connected to: it may have been started anew. */
  readonly onConnected?: Effect.Effect<void>
}

/** A container that can't be followed. */
export class FollowRefused extends Schema.TaggedError<FollowRefused>()("FollowRefused", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** Of what a person asked for on the command line. */
const personsOwner = "cli"

const resyncSeconds = 30
const retryMillis = 5_000

/**
 * Watches until the scope closes, which leaves everything published. Answers the driver to serve in the place of the one it
 * stands on: it lists what could not be published too, follows containers, and learns what is unmapped.
 */
export const startWatch = Effect.fnUntraced(function* ({
  trustImageLabels,
  onConnected = Effect.void
}: WatchOptions): Effect.fn.Return<
  Driver["Service"],
  RecordError,
  Engine | Driver | WatchRecord | Scope.Scope
> {
  const engine = yield* Engine
  const base = yield* Driver
  const record = yield* WatchRecord
  const images = makeImageLabels(engine)
  const problems = makeProblems()
  const recorded = yield* record.load

  /** What is mapped for each want, as far as is known; refreshed from the driver in full now and then. */
  const held = new Map<string, Held>()
  /** Which want a frontend is mapped for. */
  const frontends = new Map<string, string>()
  const granted = new Map(recorded.granted)
  let follows = recorded.follows
  /** Unmapped by hand while their containers ran: not mapped again until they are started anew. */
  const dismissed = new Set<string>()
  let unsaved = false

  const turns = yield* Semaphore.make(1)
  const wakes = yield* Queue.unbounded<EngineEvent | Resync>()
  const wake = (event: EngineEvent | Resync) => Queue.offerUnsafe(wakes, event)

  const hold = (key: string, what: Held | undefined) => {
    for (const binding of held.get(key)?.bindings ?? []) frontends.delete(frontendOf(binding))
    if (what === undefined || what.bindings.length === 0) return void held.delete(key)
    held.set(key, what)
    for (const binding of what.bindings) frontends.set(frontendOf(binding), key)
  }

  /** Looks at everything; `full` also at what is mapped, which others may have changed. */
  const reconcile = Effect.fnUntraced(function* (full: boolean) {
    const containers = yield* engine.containers
    if (full && base.listPorts !== undefined) {
      const found = heldFrom(yield* ownPorts(base.listPorts), held)
      for (const key of [...held.keys()]) if (!found.has(key)) hold(key, undefined)
      for (const [key, what] of found) hold(key, what)
    }
    const named = renamed(follows, containers)
    if (named.some((each, index) => each !== follows[index])) unsaved = true
    follows = named
    const wanted = yield* wantedNow(containers)
    const keys = new Set(wanted.wants.map(({ key }) => key))
    for (const key of dismissed) if (!keys.has(key)) dismissed.delete(key)
    const wants = wanted.wants.filter(({ key }) => !dismissed.has(key))
    const changes = changesFor(wants, held, granted)
    yield* release(changes.release)
    const failures: Array<Problem> = []
    const counts = new Map<string, number>()
    // Batch by batch, so that exact ports which are seen to one by one still come before what picks from a range.
    for (const batch of inBatches(changes.map)) {
      const asks = batch.filter(({ want }) => !dismissed.has(want.key))
      const apart = !(yield* mapTogether(asks))
      for (const ask of asks) {
        const failure = apart ? yield* mapOne(ask) : undefined
        const { name } = ask.want
        if (failure === undefined) counts.set(name, (counts.get(name) ?? 0) + 1)
        else failures.push(failure)
      }
    }
    for (const [name, count] of counts) yield* Effect.logInfo(`${name}: ${portsText(count)} published`)
    yield* problems.tell([...wanted.problems, ...failures])
    forget(containers)
    yield* save
  })

  /** Owner by owner, which leaves all counters unread: those of the whole host may take a while. */
  const ownPorts = Effect.fnUntraced(function* (listPorts: NonNullable<Driver["Service"]["listPorts"]>) {
    const owners = new Set([watchOwner, personsOwner])
    for (const { owner } of [...follows, ...held.values()]) owners.add(owner)
    const all: Array<ListedMapping> = []
    for (const owner of owners) {
      const listed = yield* Effect.provideService(listPorts, ListedOwner, owner)
      for (const mapping of listed) if (mapping.owner === owner) all.push(mapping)
    }
    return all
  })

  const wantedNow = Effect.fnUntraced(function* (containers: ReadonlyArray<Container>) {
    const all: Array<Wanted> = []
    for (const container of containers) {
      if (!container.running || !asksByLabel(container)) continue
      const labels = trustImageLabels ? container.labels : yield* images.countedLabelsOf(container)
      if (labels !== undefined) all.push(wantedByLabels(container, labels, containers))
    }
    for (const follow of follows) all.push(wantedByFollow(follow, containers))
    return {
      wants: all.flatMap(({ wants }) => wants),
      problems: all.flatMap(({ problems }) => problems)
    }
  })

  const release = Effect.fnUntraced(function* (gone: Changes["release"]) {
    if (gone.length === 0) return
    const bindings = gone.flatMap((each) => each.bindings)
    const result = yield* unmapBindings({ bindings, labels: new Map() }).pipe(
      Effect.provideService(Driver, base),
      Effect.result
    )
    if (Result.isFailure(result)) {
      yield* Effect.logError(`unmapping what containers no longer have: ${result.failure.message}`)
      yield* later(retryMillis)
      return
    }
    const counts = new Map<string, number>()
    for (const each of gone) {
      const what = held.get(each.key)
      if (what === undefined) continue
      counts.set(what.name, (counts.get(what.name) ?? 0) + 1)
      const left = what.bindings.filter((binding) => !each.bindings.includes(binding))
      hold(each.key, { ...what, bindings: left, signature: undefined })
    }
    for (const [name, count] of counts) yield* Effect.logInfo(`${name}: ${portsText(count)} released`)
  })

  /** Of one owner. Answers whether it was done: else one of them can't be had as it was asked for, or there is but one. */
  const mapTogether = Effect.fnUntraced(function* (asks: ReadonlyArray<Ask>) {
    const [first] = asks
    if (first === undefined || asks.length === 1) return false
    const groups = asks.map(({ want, tries: [ports = want.group.ports] }) => ({ ...want.group, ports }))
    const mapped = yield* Effect.option(Effect.scoped(askedOf(mapGroupsTogether(groups), first.want.owner)))
    if (Option.isNone(mapped)) return false
    for (const [index, { want }] of asks.entries()) keep(want, mapped.value[index] ?? [])
    return true
  })

  const mapOne = Effect.fnUntraced(function* ({ want, tries }: Ask) {
    if (dismissed.has(want.key)) return undefined
    let failure: DriverError | undefined
    for (const ports of tries) {
      const mapped = yield* Effect.result(Effect.scoped(mapWant(want, ports)))
      if (Result.isSuccess(mapped)) {
        if (failure !== undefined)
          yield* Effect.logWarning(
            `${want.name}: got another port than before for ${want.group.labels.get("portmapper.publish")}: ${failure.message}`
          )
        keep(want, mapped.success)
        return undefined
      }
      failure = mapped.failure
    }
    return failure === undefined ? undefined : problemOf(want, failure)
  })

  const mapWant = (want: Want, ports: Want["group"]["ports"]) =>
    askedOf(mapGroup({ ...want.group, ports }), want.owner)

  /** A defect of the driver is the trouble of what was asked, and of nothing else. */
  const askedOf = <A>(asked: Effect.Effect<A, DriverError, Driver | Scope.Scope>, owner: string) =>
    asked.pipe(
      Effect.provideService(Driver, base),
      Effect.provideService(CurrentOwner, owner),
      Effect.catchDefect(
        (defect): Effect.Effect<never, DriverError> =>
          Effect.fail({ _tag: "Defect", message: `internal error: ${defect}` })
      )
    )

  const keep = (want: Want, bindings: ReadonlyArray<PortBinding>) => {
    const [first] = bindings
    if (first === undefined) return
    hold(want.key, {
      name: want.name,
      owner: want.owner,
      port: first.port,
      bindings: bindings.flatMap(releasedOf),
      signature: signatureOf(want.group)
    })
    if (want.group.ports._tag === "Exact" || granted.get(want.key) === first.port) return
    granted.set(want.key, first.port)
    unsaved = true
  }

  /** What is known of containers that are gone. Ports are kept for those that are still there, and for what is followed. */
  const forget = (containers: ReadonlyArray<Container>) => {
    images.forget(containers)
    const known = new Set([
      ...containers.map(({ id }) => shortId(id)),
      ...follows.map(({ id }) => shortId(id))
    ])
    for (const key of granted.keys()) {
      if (known.has(key.split(" ")[1] ?? "")) continue
      granted.delete(key)
      unsaved = true
    }
  }

  const save = Effect.suspend(() => {
    if (!unsaved) return Effect.void
    unsaved = false
    return Effect.catch(record.save({ follows, granted }), (error) =>
      Effect.logError(`recording what is followed: ${error.message}`)
    )
  })

  const later = (millis: number) =>
    Effect.forkIn(
      Effect.andThen(
        Effect.sleep(millis),
        Effect.sync(() => wake({ _tag: "Resync" }))
      ),
      scope
    )

  /** Whatever goes wrong, a defect of the driver included, the next look is not given up. */
  const reconcileOrTell = (full: boolean) =>
    turns.withPermits(1)(
      Effect.flatMap(Effect.exit(reconcile(full)), (exit) =>
        Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)
          ? Effect.void
          : Effect.andThen(
              Effect.logWarning(`looking at the containers: ${failureText(exit.cause)}`),
              later(retryMillis)
            )
      )
    )

  /** What comes while one look is under way, a restart is some six events, is all looked at by the next. */
  const work = Effect.gen(function* () {
    const first = yield* Queue.take(wakes)
    const events = [first, ...(yield* Queue.clear(wakes))]
    const connected = events.some(({ _tag }) => _tag === "Connected")
    if (connected) yield* onConnected
    yield* reconcileOrTell(connected || events.some(({ _tag }) => _tag === "Resync"))
    // The Engine tells of a network before its lists show it.
    for (const id of new Set(events.flatMap((event) => (isRewiring(event) ? [event.id] : []))))
      yield* Effect.forkIn(
        Effect.andThen(
          Effect.ignore(engine.settled(id)),
          Effect.sync(() => wake({ _tag: "Changed", id, action: "settled" }))
        ),
        scope
      )
  })

  /** Takes note of what others unmapped, so that it is not mapped again. */
  const noticeUnmapped = ({ bindings }: Release) =>
    Effect.suspend(() => {
      const keys = new Set(bindings.flatMap((binding) => frontends.get(frontendOf(binding)) ?? []))
      for (const { problem } of problems.standing())
        if (problem.want !== undefined && bindings.some((binding) => waitsFor(problem, binding, granted)))
          keys.add(problem.want.key)
      if (keys.size === 0) return Effect.void
      const before = follows
      follows = follows.flatMap((follow) => withoutPorts(follow, keys))
      for (const key of keys) {
        if (key.startsWith("watch ")) dismissed.add(key)
        hold(key, undefined)
      }
      problems.forget(keys)
      if (follows !== before) unsaved = true
      wake({ _tag: "Resync" })
      return save
    })

  const follow = Effect.fnUntraced(function* (request: FollowRequest) {
    // An Engine asks for nothing by name: a caller who does not say who it is, is a person.
    const caller = yield* CurrentOwner
    const owner = caller === "engine" ? personsOwner : caller
    const containers = yield* engine.containers
    const container = yield* refusing(findContainer(request.container, containers))
    if (!container.running)
      return yield* new FollowRefused({ detail: `container ${container.name} is not running` })
    const added = request.publish.map(
      (publish): Follow => ({
        id: container.id,
        name: container.name,
        publish: publishText(publish),
        labels: Object.fromEntries(request.labels),
        owner,
        without: []
      })
    )
    const wanted = added.map((each) => wantedByFollow(each, containers))
    const [problem] = wanted.flatMap(({ problems }) => problems)
    if (problem !== undefined)
      return yield* new FollowRefused({ detail: `container ${container.name}: ${problem.detail}` })
    const wants = wanted.flatMap((each) => each.wants)
    const same = new Set(added.map(followKey))
    const before = follows.filter((each) => same.has(followKey(each)))
    const followInstead = (these: ReadonlyArray<Follow>) => {
      follows = [...follows.filter((each) => !same.has(followKey(each))), ...these]
    }
    yield* Effect.addFinalizer((exit) => {
      if (Exit.isSuccess(exit)) return Effect.void
      // What was mapped is undone by the driver; what was followed before still is, and what others followed since.
      followInstead(before)
      for (const { key } of wants) hold(key, undefined)
      unsaved = true
      wake({ _tag: "Resync" })
      return save
    })
    const answers = new Map<string, ReadonlyArray<PortBinding>>()
    for (const { want, tries } of changesFor(wants, withoutSignatures(held), granted).map) {
      const [first, second] = tries
      if (first === undefined) continue
      const mapped = mapWant(want, first)
      const bindings = yield* second === undefined
        ? mapped
        : Effect.catch(mapped, () => mapWant(want, second))
      answers.set(want.key, bindings)
    }
    for (const want of wants) keep(want, answers.get(want.key) ?? [])
    followInstead(added)
    unsaved = true
    yield* save
    return wants.flatMap(({ key }) => answers.get(key) ?? [])
  })

  const scope = yield* Effect.scope
  yield* Effect.forkIn(listen(engine, wake), scope)
  yield* Effect.forkIn(Effect.forever(work), scope)
  yield* Effect.forkIn(
    Effect.forever(
      Effect.andThen(
        Effect.sleep(`${resyncSeconds} seconds`),
        Effect.sync(() => wake({ _tag: "Resync" }))
      )
    ),
    scope
  )

  const { listPorts } = base
  return Driver.of({
    ...base,
    unmapPorts: (release) => Effect.andThen(base.unmapPorts(release), noticeUnmapped(release)),
    followContainer: (request) => turns.withPermits(1)(follow(request)),
    ...(listPorts === undefined
      ? {}
      : {
          listPorts: Effect.map(listPorts, (listed) => [
            ...listed,
            ...problems.standing().map((standing) => listedProblem(standing, granted))
          ])
        })
  })
})

interface Resync {
  readonly _tag: "Resync"
}

const refusing = <A>(result: Result.Result<A, string>): Effect.Effect<A, FollowRefused> =>
  Effect.fromResult(Result.mapError(result, (detail) => new FollowRefused({ detail })))

/** Of one owner each, in order. */
const inBatches = (asks: ReadonlyArray<Ask>): ReadonlyArray<ReadonlyArray<Ask>> => {
  const batches: Array<Array<Ask>> = []
  for (const ask of asks) {
    const last = batches.at(-1)
    if (last === undefined || last.length === groupsAtOnce || last[0]?.want.owner !== ask.want.owner)
      batches.push([ask])
    else last.push(ask)
  }
  return batches
}

const isRewiring = (event: EngineEvent | Resync): event is Extract<EngineEvent, { _tag: "Changed" }> =>
  event._tag === "Changed" && (event.action === "connect" || event.action === "disconnect")

/** What a person asks for is asked of the driver again, whatever was answered before. */
const withoutSignatures = (held: ReadonlyMap<string, Held>): ReadonlyMap<string, Held> =>
  new Map([...held].map(([key, what]) => [key, { ...what, signature: undefined }]))

const failureText = (cause: Cause.Cause<EngineError | DriverError>): string => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error === undefined ? `internal error: ${Cause.pretty(cause).split("\n")[0]}` : error.message
}

const portsText = (count: number): string => (count === 1 ? "1 port" : `${count} ports`)

const frontendOf = ({ protocol, host, port, backend }: ReleasedBinding): string =>
  port === 0 ? `${protocol} ${backend.address?.key} ${backend.port}` : frontendText(protocol, host, port)

const releasedOf = ({ entry, port, discarded }: PortBinding): ReadonlyArray<ReleasedBinding> =>
  discarded === undefined
    ? [{ protocol: entry.protocol, host: entry.host, port, backend: entry.backend }]
    : []
