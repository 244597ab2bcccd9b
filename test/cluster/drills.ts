/**
 * What must hold when etcd, the network or a host fails, each tried with real ones. Three of them run in the gate, all of
 * them by `npm run test:long`.
 */
import { join } from "node:path"
import { assert } from "@effect/vitest"
import { Effect, Fiber, type Scope } from "effect"
import { type ClusterHost, type ClusterLab, makeClusterLab, mapsSoon } from "../lab/ClusterLab.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { temporaryFolder } from "../support/folders.ts"
import { until } from "../support/until.ts"

interface Drill {
  readonly title: string
  readonly options: Parameters<typeof makeClusterLab>[0]
  readonly run: (lab: ClusterLab) => Effect.Effect<void, unknown, Scope.Scope>
}

const drill = (title: string, options: Drill["options"], run: Drill["run"]): Drill => ({
  title,
  options,
  run
})

const needs = ["root", "ip", "nft", "namespaces", "etcd", "etcdctl"] as const

/** Each in a lab of its own. */
export const runDrills = (drills: ReadonlyArray<Drill>): void => {
  for (const { title, options, run } of drills)
    testNeeding(title, needs, () => Effect.flatMap(makeClusterLab(options), run))
}

/** One after the other in one lab, that of the first; nothing is published in between. */
export const runInOneLab = (
  title: string,
  [first, ...others]: readonly [Drill, ...ReadonlyArray<Drill>]
): void =>
  testNeeding(title, needs, () =>
    Effect.gen(function* () {
      const lab = yield* makeClusterLab(first.options)
      for (const { run } of [first, ...others]) {
        yield* Effect.scoped(run(lab))
        for (const name of first.options.hosts) yield* lab.hosts[name].unmap()
      }
    })
  )

const heldBy = (port: number, host: string) =>
  `bind for 0.0.0.0:${port}/tcp failed: port is already allocated (held by host ${host} `

const isStates = (host: ClusterHost, ...expected: ReadonlyArray<string>) =>
  until(host.states, (states) => states.join() === expected.join())

/** Both see the same cluster, in the end. */
const agree = (...hosts: ReadonlyArray<ClusterHost>) =>
  until(
    Effect.forEach(hosts, ({ cluster }) => Effect.map(cluster, (rows) => rows.join())),
    ([first, ...others]) => others.every((other) => other === first)
  )

/** The cluster's claims are what the host serves, in the end: nothing has leaked. */
const holdsWhatItServes = (host: ClusterHost) =>
  until(
    Effect.all([
      Effect.map(host.states, (states): ReadonlyArray<unknown> => states.map((state) => state.split(" ")[0])),
      Effect.map(host.cluster, (rows) =>
        rows.filter((row) => row.endsWith(` ${host.name}`)).map((row) => row.split(" ")[0])
      )
    ]),
    ([served, claimed]) => served.join() === claimed.join()
  )

export const frozen = drill(
  "a host that was frozen for longer than its lease gives up what others have claimed since, and grants nothing before it knows",
  { members: 1, hosts: ["a", "b"] },
  ({ hosts: { a, b }, answers }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* a.map(8080), 8080)
      assert.strictEqual(yield* a.map(8081), 8081)
      assert.include(yield* b.map(8080), heldBy(8080, "a"))
      yield* a.plugin().process.kill("SIGSTOP")
      yield* mapsSoon(b, 8080)
      assert.isTrue(yield* answers(a, 8081))
      yield* a.plugin().process.kill("SIGCONT")
      // A new one is asked of etcd first, and is its own then.
      yield* mapsSoon(a, 8082)
      assert.include(yield* b.map(8082), heldBy(8082, "a"))
      yield* isStates(a, "8080 conflicted held by host b", "8081 live", "8082 live")
      assert.deepStrictEqual(yield* b.states, ["8080 live"])
      assert.isTrue(yield* answers(b, 8080))
      assert.isFalse(yield* answers(a, 8080))
    })
)

export const cutOff = drill(
  "a host cut off from etcd goes on with what it publishes, and gives out only what it surely holds",
  { members: 1, hosts: ["a", "b"] },
  ({ etcd, hosts: { a, b }, answers }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* a.map(8080), 8080)
      const first = yield* a.map(0)
      yield* a.cut
      const second = yield* a.map(0)
      assert.strictEqual(typeof second, "number")
      const refused = yield* a.map(8081)
      assert.include(refused, `bind for 0.0.0.0:8081/tcp failed: `)
      assert.include(refused, `etcd at ${etcd.urls}: `)
      const late = yield* until(a.map(0), (mapped) => typeof mapped === "string")
      assert.include(late, `etcd at ${etcd.urls}: `)
      assert.isTrue(yield* answers(a, 8080))
      // Its lease has ended: whoever asks has it.
      yield* mapsSoon(b, 8081)
      yield* a.mend
      yield* mapsSoon(a, 8082)
      assert.include(yield* a.map(8081), heldBy(8081, "b"))
      yield* until(a.states, (states) => states.every((state) => state.endsWith(" live")))
      assert.includeMembers([...(yield* a.states)], [`${first} live`, `${second} live`, "8080 live"])
      yield* holdsWhatItServes(a)
      yield* agree(a, b)
    })
)

export const lateReply = drill(
  "a claim that etcd carries out after its caller gave up, and after the lease's end, leaves nothing behind",
  { members: 1, hosts: ["a", "b"] },
  ({ etcd: { members }, hosts: { a, b } }) =>
    Effect.gen(function* () {
      const [member] = members
      assert.strictEqual(yield* a.map(8080), 8080)
      yield* Effect.ignore(a.map(0))
      yield* member?.process().kill("SIGSTOP") ?? Effect.void
      assert.include(yield* a.map(8081), "bind for 0.0.0.0:8081/tcp failed: ")
      yield* until(a.map(0), (mapped) => typeof mapped === "string")
      const waiting = yield* Effect.forkChild(a.map(8082))
      yield* member?.process().kill("SIGCONT") ?? Effect.void
      yield* mapsSoon(b, 8081)
      const mapped = yield* Fiber.join(waiting)
      yield* mapsSoon(a, 8083)
      assert.strictEqual(typeof mapped === "number", (yield* a.states).includes("8082 live"))
      yield* holdsWhatItServes(a)
      yield* holdsWhatItServes(b)
      yield* agree(a, b)
    })
)

export const stalledLeader = drill(
  "a leader of etcd that hangs is left out, also by a host whose watch is with it",
  { members: 3, hosts: ["a", "b", "c"], ttl: "20s" },
  ({ etcd, hosts: { a, b, c } }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* a.map(8080), 8080)
      const leader = yield* leaderOf(etcd)
      yield* leader.process().kill("SIGSTOP")
      yield* mapsSoon(a, 8081)
      yield* mapsSoon(b, 8082)
      yield* mapsSoon(c, 8083)
      const all = ["8080 a", "8081 a", "8082 b", "8083 c"]
      for (const host of [a, b, c]) yield* until(host.cluster, (rows) => rows.join() === all.join())
      yield* leader.process().kill("SIGCONT")
      yield* mapsSoon(a, 8084)
      for (const host of [a, b, c]) yield* holdsWhatItServes(host)
    })
)

export const staleLeader = drill(
  "what a leader of etcd did that hung for longer than the leases, and comes back, is mended",
  { members: 3, hosts: ["a", "b"] },
  ({ etcd, hosts: { a, b }, answers }) =>
    Effect.gen(function* () {
      yield* mapsSoon(a, 8080)
      yield* mapsSoon(b, 8081)
      const leader = yield* leaderOf(etcd)
      yield* leader.process().kill("SIGSTOP")
      // One lease more, that nobody renews, tells when theirs would have ended.
      const ctl = etcd.ctlBeside(leader)
      const granted = yield* until(
        Effect.orElseSucceed(ctl("lease", "grant", "9"), () => ""),
        (text) => text.includes("granted")
      )
      const lease = granted.split(" ")[1] ?? ""
      yield* until(ctl("lease", "timetolive", lease), (text) => text.includes("expired"))
      yield* leader.process().kill("SIGCONT")
      assert.isTrue(yield* answers(a, 8080))
      yield* mapsSoon(a, 8082)
      yield* isStates(a, "8080 live", "8082 live")
      yield* isStates(b, "8081 live")
      for (const host of [a, b]) yield* holdsWhatItServes(host)
      yield* agree(a, b)
    })
)

export const lostQuorum = drill(
  "without a quorum what is published goes on, and claims begin again with it",
  { members: 3, hosts: ["a", "b"], ttl: "20s" },
  ({ etcd: { members }, hosts: { a, b }, answers }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* a.map(8080), 8080)
      const [, second, third] = members
      assert.isDefined(second)
      assert.isDefined(third)
      yield* second?.kill ?? Effect.void
      yield* third?.kill ?? Effect.void
      assert.include(yield* a.map(8081), "bind for 0.0.0.0:8081/tcp failed: ")
      assert.isTrue(yield* answers(a, 8080))
      yield* second?.start() ?? Effect.void
      yield* mapsSoon(b, 8081)
      yield* mapsSoon(a, 8082)
      // A leader elected anew lets each lease live for its whole TTL.
      yield* isStates(a, "8080 live", "8082 live")
      yield* holdsWhatItServes(a)
      yield* agree(a, b)
    })
)

export const compacted = drill(
  "a host that was away while etcd forgot the changes reads everything again",
  { members: 1, hosts: ["a", "b"], ttl: "20s" },
  ({ etcd, hosts: { a, b } }) =>
    Effect.gen(function* () {
      for (const port of [8080, 8081, 8082]) yield* mapsSoon(a, port)
      yield* agree(a, b)
      yield* b.cut
      yield* a.unmap(8081)
      yield* mapsSoon(a, 8083)
      const [status] = JSON.parse(yield* etcd.ctl("endpoint", "status", "-w", "json"))
      yield* etcd.ctl("compact", String(status.Status.header.revision))
      yield* mapsSoon(a, 8084)
      yield* b.mend
      yield* until(b.cluster, (rows) => rows.join() === "8080 a,8082 a,8083 a,8084 a")
      yield* mapsSoon(b, 8081)
    })
)

export const killed = drill(
  "a host that is killed between a claim and its record keeps what it answered, and no other claim",
  { members: 1, hosts: ["a", "b"], ttl: "20s" },
  ({ hosts: { a, b } }) =>
    Effect.gen(function* () {
      const answered = new Set<number>()
      for (let round = 0; round < 5; round++) {
        const mapping = yield* Effect.forkChild(
          Effect.forEach(
            Array.from({ length: 40 }, (_, index) => 8000 + 100 * round + index),
            (port) =>
              Effect.map(a.map(port), (mapped) => {
                if (mapped === port) answered.add(port)
              }),
            { concurrency: 4 }
          )
        )
        yield* until(
          Effect.sync(() => answered.size),
          (size) => size > 25 * round + 5 * (round + 1) || mapping.pollUnsafe() !== undefined
        )
        yield* a.plugin().process.kill("SIGKILL")
        yield* Effect.exit(Fiber.join(mapping))
        yield* a.start
        const served = yield* Effect.map(
          a.states,
          (states) => new Set(states.map((state) => Number.parseInt(state, 10)))
        )
        for (const port of answered) assert.isTrue(served.has(port), `${port} was answered`)
        yield* holdsWhatItServes(a)
      }
      yield* agree(a, b)
      const [port] = answered
      assert.include(yield* b.map(port ?? 0), heldBy(port ?? 0, "a"))
    })
)

export const restored = drill(
  "hosts agree again after etcd was restored from an older backup",
  { members: 1, hosts: ["a", "b"], ttl: "20s" },
  ({ etcd, hosts: { a, b } }) =>
    Effect.gen(function* () {
      const [member] = etcd.members
      const backup = join(yield* temporaryFolder, "backup")
      yield* mapsSoon(a, 8080)
      yield* mapsSoon(b, 8081)
      yield* etcd.ctl("snapshot", "save", backup)
      yield* b.unmap(8081)
      yield* mapsSoon(a, 8081)
      yield* mapsSoon(a, 8082)
      yield* mapsSoon(b, 8083)
      yield* member?.kill ?? Effect.void
      yield* member?.restore(backup) ?? Effect.void
      yield* member?.start() ?? Effect.void
      yield* isStates(a, "8080 live", "8081 live", "8082 live")
      yield* isStates(b, "8083 live")
      yield* until(b.cluster, (rows) => rows.join() === "8080 a,8081 a,8082 a,8083 b")
      yield* agree(a, b)
    })
)

export const stopped = drill(
  "a host that was stopped keeps its ports until it is back, and gives them to nobody",
  { members: 1, hosts: ["a", "b"] },
  ({ hosts: { a, b } }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* a.map(8080), 8080)
      const ephemeral = yield* a.map(0)
      yield* a.plugin().process.stop
      yield* until(b.cluster, (rows) => rows.includes("8080 a"))
      assert.include(yield* b.map(8080), heldBy(8080, "a"))
      yield* a.start
      yield* mapsSoon(a, 8081)
      yield* isStates(a, `${ephemeral} live`, "8080 live", "8081 live")
      yield* holdsWhatItServes(a)
      yield* agree(a, b)
    })
)

export const forgottenToken = drill(
  "a host whose token etcd has forgotten logs in again, also for its watch",
  { members: 1, hosts: ["a", "b"], ttl: "20s", users: true },
  ({ etcd: { members }, hosts: { a, b } }) =>
    Effect.gen(function* () {
      yield* mapsSoon(a, 8080)
      yield* agree(a, b)
      for (const member of members) yield* Effect.andThen(member.kill, member.start())
      yield* mapsSoon(a, 8081)
      yield* until(b.cluster, (rows) => rows.join() === "8080 a,8081 a")
      yield* isStates(a, "8080 live", "8081 live")
    })
)

const leaderOf = Effect.fnUntraced(function* (etcd: ClusterLab["etcd"]) {
  const statuses = JSON.parse(yield* etcd.ctl("endpoint", "status", "-w", "json")) as ReadonlyArray<{
    readonly Endpoint: string
    readonly Status: { readonly leader: number; readonly header: { readonly member_id: number } }
  }>
  const leading = statuses.find(({ Status }) => Status.leader === Status.header.member_id)
  const leader = etcd.members.find(({ url }) => url === leading?.Endpoint)
  return leader === undefined ? yield* Effect.die(new Error("etcd has no leader")) : leader
})
