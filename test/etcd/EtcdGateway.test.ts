/** The client's connections: which endpoint it asks, as whom, and what it says where it gets no answer. */
import * as Fs from "node:fs"
import { createServer as createHttpServer } from "node:http"
import { createServer } from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Result, Schedule, Stream } from "effect"
import { checkEndpoints, type EtcdOptions, parseEndpoints } from "../../adapters/etcd/index.ts"
import { type ClusterError, Etcd } from "../../src/cluster/Etcd.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"
import { patienceMillis } from "../lab/patience.ts"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/folders.ts"
import { listening } from "../support/listening.ts"
import { clientOf } from "./realEtcd.ts"
import { configure, documented } from "./users.ts"

type Service = Etcd["Service"]

const prefix = "/portmapper/default/"
const key = `${prefix}cells/1/x`

/** Runs `ask` with a client of its own. */
const asking = <A, E>(
  urls: string,
  ask: (etcd: Service) => Effect.Effect<A, E>,
  options: Partial<EtcdOptions> = {}
) => Effect.provide(Effect.flatMap(Etcd, ask), clientOf(urls, options))

const read = (etcd: Service) => Effect.map(etcd.page(prefix, { limit: 10 }), ({ entries }) => entries.length)

const put =
  (at: string, value = "") =>
  (etcd: Service) =>
    etcd.transact({ compare: [], success: [{ _tag: "Put", key: at, value }] })

const message = <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.message)

/** A port on which nothing listens any more. */
const deadEndpoint = Effect.scoped(listening(createServer()))

/** Accepts, and says nothing. */
const hangingEndpoint = Effect.suspend(() => {
  const sockets = new Set<{ destroy: () => void }>()
  const server = createServer((socket) => void sockets.add(socket))
  return Effect.acquireRelease(listening(server), () =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
    })
  )
})

describe("a client of etcd", () => {
  it.live("says why an endpoint gives no answer", () =>
    Effect.gen(function* () {
      const dead = yield* deadEndpoint
      assert.strictEqual(yield* message(asking(dead, read)), `etcd at ${dead}: no process is listening there`)
      const hanging = yield* hangingEndpoint
      const error = yield* Effect.flip(asking(hanging, put(key), { timeoutMillis: 100 }))
      assert.strictEqual(error.message, `etcd at ${hanging}: no answer within 0.1 s`)
      assert.include(error, { reason: "Unreachable", mayBeDone: true })
      const other = yield* listening(createHttpServer((_, response) => response.writeHead(404).end("no")))
      assert.strictEqual(
        yield* message(asking(other, read)),
        `etcd at ${other}: status 404: what is there is no etcd v3 with a JSON gateway`
      )
      // Another gRPC service behind a gateway of the same make.
      const service = yield* listening(
        createHttpServer((_, response) => response.writeHead(404).end('{"code":5,"message":"Not Found"}'))
      )
      assert.strictEqual(yield* message(asking(service, put(key))), `etcd at ${service}: Not Found`)
      const words = yield* listening(createHttpServer((_, response) => response.end("welcome")))
      assert.match(yield* message(asking(words, read)), /: an answer that is none of etcd v3's: /)
    })
  )

  it.live("counts no request that it could not make", () =>
    Effect.gen(function* () {
      const counts = yield* asking(
        yield* deadEndpoint,
        (etcd) => Effect.andThen(Effect.exit(put(key)(etcd)), etcd.counts),
        { user: "host-a", passwordFile: "/nowhere" }
      )
      assert.deepInclude(counts, { requests: 0, writes: 0 })
      assert.strictEqual(counts.failures.Denied, 1)
    })
  )

  testNeeding("asks the next endpoint where one does not answer", ["etcd"], () =>
    Effect.gen(function* () {
      const { urls } = yield* startEtcd()
      const all = [yield* deadEndpoint, yield* hangingEndpoint, urls].join(",")
      const counts = yield* asking(
        all,
        (etcd) =>
          Effect.gen(function* () {
            yield* Effect.retry(put(key)(etcd), Schedule.recurs(20))
            yield* read(etcd)
            return yield* etcd.counts
          }),
        { timeoutMillis: 500 }
      )
      assert.strictEqual(counts.requests, counts.failures.Unreachable + 2)
    })
  )

  testNeeding("tells of each endpoint how it is", ["etcd"], () =>
    Effect.gen(function* () {
      const { urls } = yield* startEtcd()
      const dead = yield* deadEndpoint
      const endpoints = Result.getOrThrow(parseEndpoints(`${dead},${urls}`))
      const [first, second] = yield* checkEndpoints({ endpoints, timeoutMillis: patienceMillis })
      assert.strictEqual(
        first !== undefined && Result.isFailure(first) ? first.failure.message : "",
        `etcd at ${dead}: no process is listening there`
      )
      const status = second !== undefined && Result.isSuccess(second) ? second.success : undefined
      assert.include(status, { hasLeader: true, endpoint: urls })
      assert.match(status?.version ?? "", /^3\.\d+\.\d+$/)
      // One machine has one clock.
      assert.isAtMost(Math.abs(status?.skewMillis ?? Number.POSITIVE_INFINITY), patienceMillis)
    })
  )

  testNeeding(
    "trusts the authority that it is given, and shows its own certificate",
    ["etcd", "localhost"],
    () =>
      Effect.gen(function* () {
        const { ca, both, client, foreign } = makeCertificates(yield* temporaryFolder)
        const { urls } = yield* startEtcd({
          tls: { ...both, ca: ca.cert },
          arguments: ["--client-cert-auth", "--trusted-ca-file", ca.cert]
        })
        const named = urls.replace("127.0.0.1", "localhost")
        const own = { cert: client.cert, key: client.key }
        assert.strictEqual(yield* asking(named, read, { tls: { ...own, ca: ca.cert } }), 0)
        const at = `etcd at ${named}: `
        for (const [tls, why] of [
          [own, "its certificate is of no authority known here ("],
          [{ ...own, ca: foreign.cert }, "its certificate is of no authority known here ("],
          [{ ca: ca.cert }, "etcd does not trust the client certificate ("]
        ] as const)
          assert.include(yield* message(asking(named, read, { tls })), at + why)
      })
  )

  testNeeding(
    "has the rights that docs/ETCD.md gives its user, also after a new start",
    ["etcd", "etcdctl"],
    () =>
      Effect.gen(function* () {
        const { urls, members } = yield* startEtcd()
        const [simple = "", narrow = ""] = documented()
        yield* configure(urls, simple)
        const passwordFile = Path.join(yield* temporaryFolder, "password")
        Fs.writeFileSync(passwordFile, "secret\n")
        const as = (user: string) => ({ user, passwordFile })

        const at = `etcd at ${urls}: `
        assert.strictEqual(yield* message(asking(urls, read)), `${at}it wants a user, and none is given`)
        assert.strictEqual(
          yield* message(asking(urls, read, as("host-z"))),
          `${at}authentication failed, invalid user ID or password`
        )
        assert.include(
          yield* message(asking(urls, read, { user: "host-a", passwordFile: "/nowhere" })),
          "/nowhere: the password can't be read: no such file or directory"
        )
        yield* asking(
          urls,
          (etcd) =>
            Effect.gen(function* () {
              yield* put(key)(etcd)
              assert.strictEqual(
                yield* message(put("/elsewhere")(etcd)),
                `${at}permission denied: the user's role lacks the cluster's prefix`
              )
              const denied = yield* Effect.flip(Stream.runDrain(etcd.watch("/elsewhere/", 1)))
              assert.include(denied, { _tag: "ClusterError", reason: "Denied" })
              // A restarted member knows no token any more.
              yield* Effect.forEach(members, ({ kill, start }) => Effect.andThen(kill, start()))
              assert.strictEqual(yield* read(etcd), 1)
              Fs.writeFileSync(passwordFile, "changed")
              yield* configure(urls, "echo changed | etcdctl user passwd host-a --interactive=false")
              assert.strictEqual(yield* read(etcd), 1)
            }),
          as("host-a")
        )

        yield* configure(urls, narrow.replace("$HOST_PASSWORD", "changed"))
        const ofA = `${prefix}hosts/a/`
        yield* asking(
          urls,
          (etcd) =>
            Effect.gen(function* () {
              yield* Effect.forEach([key, `${prefix}hosts/b/`], (own) => put(own)(etcd))
              const other = yield* Effect.flip(put(ofA)(etcd))
              assert.strictEqual((other as ClusterError).reason, "Denied")
              const lease = yield* asking(
                urls,
                (a) =>
                  Effect.gen(function* () {
                    const granted = yield* a.grant(Duration.seconds(60))
                    const success = [{ _tag: "Put", key: ofA, value: "", lease: granted }] as const
                    yield* a.transact({ compare: [], success })
                    return granted
                  }),
                as("host-a")
              )
              assert.strictEqual((yield* Effect.flip(etcd.revoke(lease))).reason, "Denied")
            }),
          as("host-b")
        )
      })
  )

  testNeeding(
    "reads what a watch has missed, however much, and refuses what is too long to write",
    ["etcd"],
    () =>
      Effect.gen(function* () {
        const { urls } = yield* startEtcd()
        yield* asking(urls, (etcd) =>
          Effect.gen(function* () {
            const { revision } = yield* put(key)(etcd)
            const value = "v".repeat(512 * 1024)
            const values = [value, value]
            for (let index = 0; index < 4; index++)
              yield* etcd.transact({
                compare: [],
                success: values.map((each, part) => ({
                  _tag: "Put",
                  key: `${prefix}${index}/${part}`,
                  value: each
                }))
              })
            const changes = yield* etcd.watch(prefix, revision).pipe(
              Stream.flatMap((batch) => Stream.fromIterable(batch.changes)),
              Stream.take(8),
              Stream.runCollect
            )
            assert.deepStrictEqual(
              changes.map((change) => (change._tag === "Put" ? change.entry.value.length : 0)),
              Array(8).fill(value.length)
            )
            assert.strictEqual(
              yield* message(put(key, "v".repeat(1_600_000))(etcd)),
              `etcd at ${urls}: request is too large`
            )
          })
        )
      })
  )
})
