import { assert, it } from "@effect/vitest"
import { Duration, Effect, Option, Result } from "effect"
import { type ClusterFlags, clusterOf } from "../../adapters/cli/clusterFlags.ts"
import { parseEndpoints } from "../../adapters/etcd/EtcdOptions.ts"

const none: ClusterFlags = {
  cluster: Option.none(),
  clusterName: "default",
  clusterCa: Option.none(),
  clusterCert: Option.none(),
  clusterKey: Option.none(),
  clusterUser: Option.none(),
  clusterPasswordFile: Option.none(),
  clusterHost: Option.none(),
  clusterAddress: Option.none(),
  clusterTtl: Option.none(),
  clusterAbsence: Option.none(),
  clusterScope: Option.none()
}

const cluster = (urls: string) => Option.some(Result.getOrThrow(parseEndpoints(urls)))
const file = Option.some("/x")

it.effect("joins no cluster without --cluster, and by its defaults with it", () =>
  Effect.gen(function* () {
    assert.isUndefined(yield* clusterOf(none))
    const joined = yield* clusterOf({
      ...none,
      cluster: cluster("http://10.0.0.1"),
      clusterHost: Option.some("a")
    })
    assert.deepInclude(joined, {
      ...{ name: "default", host: "a", address: undefined, scope: "cluster" },
      ttl: Duration.seconds(30),
      absence: Duration.minutes(10)
    })
  })
)

it.effect("refuses options that are of no use, or lack another one", () =>
  Effect.forEach(
    [
      [{ clusterHost: file }, "--cluster-host: of no use without --cluster URL; give it as well"],
      [
        { clusterCa: file, clusterUser: file },
        "--cluster-ca, --cluster-user: of no use without --cluster URL; give it as well"
      ],
      [
        { cluster: cluster("http://e"), clusterCa: file },
        "--cluster-ca: of no use without an https:// URL in --cluster; give it as well"
      ],
      [
        { cluster: cluster("https://e"), clusterCert: file },
        "--cluster-cert and --cluster-key belong together: give both, or neither"
      ],
      [
        { cluster: cluster("http://e"), clusterPasswordFile: file },
        "--cluster-user and --cluster-password-file belong together: give both, or neither"
      ]
    ] as const,
    ([given, message]) =>
      Effect.map(Effect.flip(clusterOf({ ...none, ...given })), (error) =>
        assert.strictEqual(error.message, message)
      )
  )
)
