import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { makeLogin } from "../../adapters/etcd/EtcdLogin.ts"
import type { ClusterError } from "../../src/cluster/Etcd.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"
import { temporaryFolder } from "../support/folders.ts"
import { asking, key, message, prefix, put, read } from "./asking.ts"
import { configure, documented } from "./users.ts"

describe("a user of etcd", () => {
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

  it.effect("is logged in once by requests at the same time, and anew by those with the lost token", () =>
    Effect.gen(function* () {
      let logins = 0
      const post = () =>
        Effect.delay(
          Effect.sync(() => `token ${++logins}`),
          "1 second"
        )
      const authenticated = yield* makeLogin({ endpoints: [], timeoutMillis: 1, user: "a" }, post)
      const invalid = { _tag: "EtcdAnswer", endpoint: "", code: 16, message: "invalid auth token" } as const
      const asAll = (isKnown: (token: string | undefined) => boolean) =>
        Effect.all(
          Array.from({ length: 3 }, () =>
            authenticated((token) => (isKnown(token) ? Effect.succeed(token) : Effect.fail(invalid)))
          ),
          { concurrency: "unbounded" }
        ).pipe(Effect.forkChild, Effect.tap(TestClock.adjust("1 minute")), Effect.flatMap(Fiber.join))
      assert.deepStrictEqual(yield* asAll(() => true), Array(3).fill("token 1"))
      assert.deepStrictEqual(yield* asAll((token) => token !== "token 1"), Array(3).fill("token 2"))
      assert.strictEqual((yield* Effect.flip(asAll(() => false)))._tag, "EtcdAnswer")
      assert.strictEqual(logins, 3)
    })
  )
})
