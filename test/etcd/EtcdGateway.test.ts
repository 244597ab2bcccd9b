/** What a connection says where it gets no answer, and what it counts. */
import { createServer as createHttpServer } from "node:http"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/folders.ts"
import { listening } from "../support/listening.ts"
import { asking, deadEndpoint, hangingEndpoint, key, message, put, read } from "./asking.ts"

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
})
