import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Result } from "effect"
import { joinCluster } from "../../adapters/cli/clustering.ts"
import { parseEndpoints } from "../../adapters/etcd/EtcdOptions.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"

/** A host's place in the cluster of an etcd where nothing listens. */
const join = (url: string, tls?: { readonly ca: string }) =>
  joinCluster(
    {
      ...{ name: "default", host: "a", address: undefined, scope: "host" },
      ...{ ttl: Duration.seconds(30), absence: Duration.minutes(10) },
      etcd: { endpoints: Result.getOrThrow(parseEndpoints(url)), tls, timeoutMillis: 100 }
    },
    { stateDirectory: "/x", ephemeral: undefined, ending: () => "leave" }
  )

const built = ({ wiring }: ReturnType<typeof join>) =>
  Layer.build(
    wiring.ports.pipe(Layer.provide(PortAllocator.layer({})), Layer.provide(HostSockets.layerMemory))
  )

describe("a host's place in a cluster", () => {
  it.live("has samples once its mapper is made, which an etcd that is away does not keep from starting", () =>
    Effect.gen(function* () {
      const joined = join("http://127.0.0.1:1")
      assert.deepStrictEqual([joined.wiring.scope, yield* joined.samples], ["host", ""])
      yield* built(joined)
      assert.match(yield* joined.samples, /^portmapper_cluster_granting 0$/m)
    })
  )

  it.live("is not taken where the client of etcd can't be made", () =>
    Effect.gen(function* () {
      const { message } = yield* Effect.flip(built(join("https://127.0.0.1:1", { ca: "/none.pem" })))
      assert.match(message, /^joining the cluster: .*\/none\.pem/)
    })
  )
})
