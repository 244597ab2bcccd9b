/** The stores of two hosts on one etcd in memory, and what befalls their requests; on a clock of the test. */
import { it } from "@effect/vitest"
import { Duration, Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { type Member, makeMember } from "../../src/cluster/Member.ts"
import { type Fault, MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { storeFor } from "../support/cluster.ts"

type Memory = MemoryEtcd["Service"]

export const ttl = Duration.seconds(30)
const unclaimed = { cell: "125", revision: 0 }
const web = [{ name: "8080", value: "web" }]

/** Hosts `a` and `b`, each with a session and a connection of its own. */
export const twoHosts = Effect.gen(function* () {
  const memory = yield* MemoryEtcd
  const host = Effect.fnUntraced(function* (name: string) {
    const store = yield* storeFor(memory, name)
    const { session } = yield* store.open({ host: name, identity: name, ttl })
    const claim = (seen: { readonly cell: string; readonly revision: number } = unclaimed) =>
      store.claim(session, seen, web)
    return { store, session, claim }
  })
  return { memory, a: yield* host("a"), b: yield* host("b") }
})

export const testStore = (title: string, run: Effect.Effect<void, unknown, MemoryEtcd | Scope.Scope>) =>
  it.effect(title, () => Effect.provide(run, MemoryEtcd.layer))

/** The next requests of a host meet these faults, one each; what follows meets none. */
export const faults = (memory: Memory, host: string, ...next: ReadonlyArray<Fault>) => {
  const left = [...next]
  memory.setFaults((from, operation) =>
    from === host && operation === "transact" ? left.shift() : undefined
  )
}

/** Lets everything happen that the next `seconds` bring. */
export const pass = (seconds: number) => TestClock.adjust(Duration.seconds(seconds))

export const claims = (memory: Memory) =>
  memory
    .entries()
    .flatMap(([key, value]) => (key.includes("/cells/") ? [`${key.split("/").at(-1)}: ${value}`] : []))

export const lostReply: Fault = { lose: "reply" }
export const lostRequest: Fault = { lose: "request" }

/** A member with a session, which knows what it holds. Nothing follows the cluster for it. */
export const memberOf = Effect.fnUntraced(function* (host: string) {
  const store = yield* storeFor(yield* MemoryEtcd, host)
  const own = { host, identity: host, address: undefined, ttl }
  const member = yield* makeMember({ ...own, absence: Duration.minutes(10) }, store)
  const opened = yield* store.open(own)
  Object.assign(member, opened, { isProven: true })
  return { member, session: opened.session }
})

/** Shows a member the cluster as it is now. */
export const look = ({ store, replica }: Member) =>
  Effect.map(store.readAll, (snapshot) => replica.apply(snapshot))
