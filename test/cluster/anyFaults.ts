/** Hosts that claim, release, stop and come back, while requests and replies are lost, late, and cut off; by seeds. */
import { assert, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { CellState, HeldClaim, Session } from "../../src/cluster/ClusterState.ts"
import type { ClusterStore } from "../../src/cluster/ClusterStore.ts"
import type { Entry } from "../../src/cluster/Etcd.ts"
import { type Fault, MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { storeFor } from "../support/cluster.ts"

const steps = 40
const hostNames = ["a", "b", "c"] as const
/** Few, so that hosts meet. */
const ports = ["1", "2", "3", "4"]
const cells = ["7", "8"]
const ttl = Duration.seconds(30)

interface Host {
  readonly name: string
  /** Of its present life. */
  store: ClusterStore["Service"]
  life: Scope.Closeable
  session: Session | undefined
  /** What it was told it holds, and has not been told it lost. */
  readonly held: Map<string, HeldClaim>
  /** What it gave back, as far as it knows. */
  readonly owed: Map<string, HeldClaim>
  /** How often its leases have ended, and all with them. */
  lapses: number
  /** The first revision of its place. */
  born: number | undefined
  /** Its claims are on two leases: some may end with the TTL, and others not. */
  isMoving: boolean
}

const idOf = ({ revision, name }: HeldClaim): string => `${revision} ${name}`

type Memory = MemoryEtcd["Service"]

const portOf = ({ name }: { readonly name: string }) => name.split("@")[0] ?? ""

const claim = Effect.fnUntraced(function* (host: Host, session: Session) {
  const cell = yield* Random.choice(cells)
  const wanted = (yield* Random.shuffle(ports)).slice(0, yield* Random.nextIntBetween(1, 2))
  let state: CellState = yield* host.store.readCell(cell)
  for (let attempt = 0; attempt < 5; attempt++) {
    if (state.claims.some((each) => wanted.includes(portOf(each)))) return
    const value = `${attempt}`
    const claims = wanted.map((port) => ({ name: `${port}@${host.name}`, value }))
    const { lapses } = host
    const outcome = yield* host.store.claim(session, state, claims)
    state = outcome.state
    if (outcome._tag === "Moved") continue
    if (lapses < host.lapses) return
    for (const each of state.claims)
      if (each.host === host.name && wanted.includes(portOf(each))) host.held.set(idOf(each), each)
    return
  }
})

const release = Effect.fnUntraced(function* (host: Host) {
  for (const [id, each] of [...host.held].slice(0, yield* Random.nextIntBetween(1, 3))) {
    host.held.delete(id)
    host.owed.set(id, each)
  }
  yield* host.store.release([...host.owed.values()])
  host.owed.clear()
})

/** Opens the session, forgets what is not there any more, and gives back what it does not know. */
const open = Effect.fnUntraced(function* (host: Host, memory: Memory) {
  const wasMoving = host.isMoving
  host.isMoving = true
  const { session } = yield* host.store.open({ host: host.name, identity: host.name, ttl })
  const there = new Set((yield* entriesOf(memory)).map(claimId))
  if (wasMoving) for (const id of host.held.keys()) if (!there.has(id)) host.held.delete(id)
  host.isMoving = false
  host.session = session
  const { cells: all } = yield* host.store.readAll
  const own = all.flatMap(({ claims }) => claims.filter((each) => each.host === host.name))
  yield* host.store.release(own.filter((each) => !host.held.has(idOf(each))))
})

/** Ends the process, with all that it had not written down, and starts another. */
const kill = Effect.fnUntraced(function* (host: Host, memory: Memory) {
  yield* Scope.close(host.life, Exit.void)
  host.life = yield* Scope.make()
  host.store = yield* Scope.provide(storeFor(memory, host.name), host.life)
  host.session = undefined
  host.owed.clear()
})

const step = Effect.fnUntraced(function* (host: Host, memory: Memory) {
  yield* Effect.sleep(Duration.millis(yield* Random.nextIntBetween(0, 3000)))
  const { session } = host
  if (session === undefined) return yield* open(host, memory)
  const dice = yield* Random.nextIntBetween(0, 100)
  if (dice < 50) return yield* claim(host, session)
  if (dice < 75) return yield* release(host)
  if (dice < 90) return yield* host.store.renew(session)
  // It crashes, or stops.
  host.session = undefined
  if (dice < 95) return
  host.isMoving = true
  yield* host.store.leave(session, Duration.minutes(10))
  host.isMoving = false
})

const live = Effect.fnUntraced(function* (host: Host, memory: Memory) {
  for (let index = 0; index < steps; index++) {
    const isKilled = (yield* Random.nextIntBetween(0, 100)) < 10
    const millis = isKilled ? yield* Random.nextIntBetween(0, 4000) : 3_600_000
    const exit = yield* Effect.exit(Effect.timeoutOption(step(host, memory), Duration.millis(millis)))
    if (Exit.isSuccess(exit) && exit.value._tag === "None") yield* kill(host, memory)
    if (Exit.isSuccess(exit)) continue
    const [reason] = exit.cause.reasons
    assert.strictEqual(reason?._tag, "Fail", String(exit.cause))
    if (reason?._tag === "Fail" && reason.error._tag === "LeaseLost") host.session = undefined
  }
})

const anyFault: Effect.Effect<Fault | undefined> = Effect.gen(function* () {
  const dice = yield* Random.nextIntBetween(0, 100)
  const late = Duration.millis(yield* Random.nextIntBetween(0, 6000))
  if (dice < 70) return undefined
  if (dice < 78) return { lose: "request" } as const
  if (dice < 86) return { lose: "reply" } as const
  if (dice < 93) return { requestDelay: late }
  return { replyDelay: late }
})

/** All keys, over a connection without faults. */
const entriesOf = (memory: Memory) =>
  Effect.map(memory.connection("observer").page("/", { limit: 1000 }), ({ entries }) => entries)

const claimId = ({ key, createRevision }: Entry): string => {
  const [, name] = /\/cells\/[^/]+\/(.+)$/.exec(key) ?? []
  return `${createRevision} ${name}`
}

/** What holds at every moment. */
const look = Effect.fnUntraced(function* (memory: Memory, hosts: ReadonlyArray<Host>) {
  const entries = yield* entriesOf(memory)
  const taken = entries.flatMap(({ key }) => key.match(/cells\/.+(?=@)/) ?? [])
  assert.strictEqual(new Set(taken).size, taken.length, taken.join(", "))
  const there = new Set(entries.map(claimId))
  for (const host of hosts) {
    const place = entries.find(({ key }) => key === `/portmapper/default/hosts/${host.name}/`)
    // It is another one where the first ended and the host opened anew since the last look.
    if (place === undefined || place.createRevision !== host.born) {
      host.lapses++
      host.held.clear()
    }
    host.born = place?.createRevision
    if (!host.isMoving)
      for (const id of host.held.keys()) assert.isTrue(there.has(id), `${host.name} lost ${id}`)
  }
})

const run = (seed: number): Effect.Effect<void, unknown, MemoryEtcd | Scope.Scope> =>
  Effect.gen(function* () {
    const memory = yield* MemoryEtcd
    const hosts = yield* Effect.forEach(
      hostNames,
      Effect.fnUntraced(function* (name) {
        const life = yield* Scope.make()
        const store = yield* Scope.provide(storeFor(memory, name), life)
        const host: Host = {
          ...{ name, store, life, session: undefined, held: new Map(), owed: new Map() },
          ...{ lapses: 0, born: undefined, isMoving: false }
        }
        yield* Effect.addFinalizer(() => Scope.close(host.life, Exit.void))
        return host
      })
    )
    const faults = yield* Effect.replicateEffect(anyFault, 5000)
    let next = 0
    memory.setFaults((host) => (host === "observer" ? undefined : faults[next++ % faults.length]))
    const pass = (millis: number) =>
      Effect.andThen(TestClock.adjust(Duration.millis(millis)), look(memory, hosts))
    const living = yield* Effect.forkChild(
      Effect.forEach(hosts, (host) => live(host, memory), { concurrency: "unbounded" })
    )
    while (living.pollUnsafe() === undefined) yield* pass(250)
    yield* Fiber.join(living)
    memory.setFaults(() => undefined)
    yield* pass(10_000)
    for (const host of hosts) yield* open(host, memory)
    const there = (yield* entriesOf(memory)).filter(({ key }) => key.includes("@")).map(claimId)
    assert.deepStrictEqual(there.sort(), hosts.flatMap(({ held }) => [...held.keys()]).sort())
  }).pipe(Random.withSeed(seed))

/** A test of so many lives of three hosts; `first` is the seed of the first. */
export const liveThroughFaults = (first: number, seeds: number) =>
  it.effect("no port is two hosts', nothing answered is lost, and nothing leaks, whatever fails", () =>
    Effect.forEach(
      Array.from({ length: seeds }, (_, index) => first + index),
      (seed) =>
        Effect.provide(Effect.scoped(run(seed)), MemoryEtcd.layer).pipe(
          Effect.catchCause((cause) => Effect.die(new Error(`seed ${seed}: ${Cause.pretty(cause)}`)))
        ),
      { discard: true }
    )
  )
