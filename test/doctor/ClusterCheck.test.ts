import { createServer, type Server } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Result } from "effect"
import { checkCluster } from "../../adapters/doctor/ClusterCheck.ts"
import { parseEndpoints } from "../../adapters/etcd/EtcdOptions.ts"
import { listening } from "../support/listening.ts"

interface Member {
  readonly version?: string
  readonly leader?: string
  readonly bytes?: number
  readonly aheadSeconds?: number
  readonly afterMillis?: number
}

/** What a member of etcd says of itself over its gateway. */
const memberSaying = ({
  version = "3.5.13",
  leader = "7",
  bytes = 1,
  aheadSeconds = 0,
  afterMillis = 0
}: Member) =>
  createServer((_, response) => {
    setTimeout(() => {
      response.setHeader("Date", new Date(Date.now() + aheadSeconds * 1000).toUTCString())
      response.end(JSON.stringify({ version, leader, dbSize: `${bytes}` }))
    }, afterMillis)
  })

const dead = Effect.scoped(listening(createServer()))

const served = (server: Server) => listening(server)

/** The checks, with the endpoints and the times of their answers as they are in no other run left out. */
const check = (urls: ReadonlyArray<string>, ttlSeconds = 3600) =>
  Effect.map(
    checkCluster(
      { endpoints: Result.getOrThrow(parseEndpoints(urls.join(","))), timeoutMillis: 10_000 },
      Duration.seconds(ttlSeconds)
    ),
    (checks) =>
      checks.map(({ status, found, remedy }) => [
        status,
        found.replaceAll(/http:\/\/\S+?(?=[,:] )/g, "URL").replace(/answers in [\d.]+ ms/, "answers"),
        remedy
      ])
  )

const checkMember = (member: Member, ttlSeconds?: number) =>
  Effect.scoped(
    Effect.flatMap(served(memberSaying(member)), (url) =>
      Effect.map(check([url], ttlSeconds), ([only]) => only)
    )
  )

describe("the check of a cluster", () => {
  it.live("is content with a member that has a leader, a sound version, and time enough", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* checkMember({ bytes: 1024 * 1024 + 1 }), [
        "ok",
        "etcd 3.5.13 at URL, answers, 2 MiB",
        undefined
      ])
    })
  )

  it.live("wants a version that ends no living lease", () =>
    Effect.forEach(
      [
        ["3.3.99", "warn"],
        ["3.4.30", "warn"],
        ["3.4.31", "ok"],
        ["3.5.12", "warn"],
        ["3.5.13", "ok"],
        ["3.6.0", "ok"],
        ["4.0.0", "ok"],
        ["2.3.8", "warn"],
        ["", "warn"]
      ] as const,
      ([version, status]) =>
        Effect.map(checkMember({ version }), (found) => assert.strictEqual(found?.[0], status, version)),
      { discard: true }
    )
  )

  it.live("names a clock that is off, and warns of one that is five seconds off", () =>
    Effect.gen(function* () {
      const [status, found] = (yield* checkMember({ aheadSeconds: 3 })) ?? []
      assert.strictEqual(status, "ok")
      assert.match(found ?? "", /, its clock \d s ahead$/)
      const behind = (yield* checkMember({ aheadSeconds: -60 })) ?? []
      assert.match(behind[1] ?? "", /, its clock \d\d s behind$/)
      assert.deepStrictEqual([behind[0], behind[2]], ["warn", "set the clocks by NTP"])
    })
  )

  it.live("warns of answers that leave a lease too little time", () =>
    Effect.gen(function* () {
      const [status, found, remedy] = (yield* checkMember({ afterMillis: 50 }, 1)) ?? []
      assert.deepStrictEqual(
        [status, remedy],
        ["warn", "raise --cluster-ttl, or give etcd a faster disk or network"]
      )
      assert.match(found ?? "", /: slow for a TTL of 1s$/)
    })
  )

  it.live("fails where no member can serve, and warns of each that can't beside one that can", () =>
    Effect.gen(function* () {
      const [gone, leaderless, sound] = [
        yield* dead,
        yield* served(memberSaying({ leader: "0" })),
        yield* served(memberSaying({}))
      ]
      const [noProcess, noLeader] = [
        "etcd at URL: no process is listening there",
        "etcd 3.5.13 at URL, answers, 1 MiB; it has no leader"
      ]
      const more = "start more of its members: most of them have to be up"
      assert.deepStrictEqual(yield* check([gone, leaderless]), [
        ["fail", noProcess, "start etcd, or correct --cluster; what is published goes on meanwhile"],
        ["fail", noLeader, more]
      ])
      assert.deepStrictEqual((yield* check([gone, leaderless, sound])).slice(0, 2), [
        ["warn", noProcess, "start this member, or take it out of --cluster"],
        ["warn", noLeader, more]
      ])
    })
  )

  it.live("fails where a file for TLS can't be read", () =>
    Effect.gen(function* () {
      const endpoints = Result.getOrThrow(parseEndpoints("https://127.0.0.1:1"))
      const checks = yield* checkCluster({ endpoints, tls: { ca: "/none.pem" } }, Duration.seconds(30))
      assert.deepStrictEqual(
        checks.map(({ status, remedy }) => [status, remedy]),
        [["fail", "correct --cluster-ca, --cluster-cert or --cluster-key"]]
      )
    })
  )
})
