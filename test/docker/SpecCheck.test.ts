import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { serveTcp } from "../../adapters/docker/PluginTcp.ts"
import { checkSpec } from "../../adapters/docker/SpecCheck.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { makeCertificates } from "../support/certificates.ts"
import { granting } from "../support/drivers.ts"
import { temporaryFolder } from "../support/folders.ts"

describe("checkSpec", () => {
  testNeeding(
    "reports whether an Engine can connect by the files, and the reason if not",
    ["localhost"],
    () =>
      Effect.gen(function* () {
        const folder = yield* temporaryFolder
        const { both, ca, client, foreign, server } = makeCertificates(folder)
        const serve = (own: { cert: string; key: string }) =>
          serveTcp({
            host: "127.0.0.1",
            port: 0,
            tls: { certFile: own.cert, keyFile: own.key, caFile: ca.cert }
          }).pipe(
            Effect.provideService(Driver, granting),
            Effect.map(({ port }) => port)
          )
        const port = yield* serve(server)
        const named = yield* serve(both)
        const check = (url: string, own = client, caFile = ca.cert) =>
          checkSpec(url, { caFile, certFile: own.cert, keyFile: own.key, insecureSkipVerify: false }).pipe(
            Effect.match({ onSuccess: () => "reached", onFailure: ({ detail }) => detail })
          )
        assert.strictEqual(yield* check(`https://127.0.0.1:${port}`), "reached")
        assert.strictEqual(yield* check(`https://localhost:${port}`), "reached")
        assert.strictEqual(yield* check(`https://localhost:${named}`, both), "reached")
        assert.strictEqual(
          yield* check(`https://127.0.0.1:${named}`, both),
          "the server's certificate is not for 127.0.0.1 (it is for DNS:localhost)"
        )
        for (const own of [server, foreign])
          assert.match(yield* check(`https://127.0.0.1:${port}`, own), /alert|ECONNRESET|socket hang up/)
        assert.match(yield* check(`https://127.0.0.1:${port}`, client, foreign.cert), /certificate/)
        assert.strictEqual(
          yield* check(`https://127.0.0.1:${port}`, { cert: "/none.pem", key: client.key }),
          "/none.pem: no such file or directory"
        )
      })
  )
})
