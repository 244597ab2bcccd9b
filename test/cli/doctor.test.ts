/** Where `doctor` looks for a Docker Engine, and what it reports of that and of the services. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { portmapper } from "../support/command.ts"
import { fakeEngine, ping } from "../support/engine.ts"
import { served, withMemory } from "./asking.ts"

interface Check {
  readonly name: string
  readonly status: string
  readonly found: string
  readonly remedy?: string
}

/** The results of the Engine checks, in order. */
const engineCheck = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}) =>
  Effect.map(
    portmapper(["doctor", "--json", "--socket", "/nonexistent", ...args], {
      env: { DOCKER_HOST: "", DOCKER_CERT_PATH: "", DOCKER_TLS_VERIFY: "", ...env }
    }),
    ({ stdout }) => {
      const { checks } = JSON.parse(stdout) as { readonly checks: ReadonlyArray<Check> }
      const names = checks.map(({ name }) => name)
      assert.strictEqual(names.indexOf("Engine's filter"), names.indexOf("Engine") + 1)
      const { status, found, remedy } = checks[names.indexOf("Engine")] as Check
      return remedy === undefined ? [status, found] : [status, found, remedy]
    }
  )

const engine = fakeEngine({ ...ping("1.52"), "/info": { body: { ServerVersion: "29.0.0" } } })

testNeeding("doctor finds nft where only root's PATH has it", ["nft"], () =>
  Effect.gen(function* () {
    const args = ["doctor", "--json", "--socket", "/nonexistent"]
    const { stdout } = yield* portmapper(args, { env: { PATH: "/nonexistent" } })
    const { checks } = JSON.parse(stdout) as { readonly checks: ReadonlyArray<Check> }
    assert.match(checks.find(({ name }) => name === "nftables")?.found ?? "", /^nftables v/)
  })
)

describe("the Engine that doctor looks at", () => {
  it.live("is that of --engine, else that of DOCKER_HOST", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* engine, yield* engine]
      const env = { DOCKER_HOST: `unix://${one.path}` }
      assert.deepStrictEqual(yield* engineCheck([], env), ["ok", `version 29.0.0 at ${one.path}`])
      assert.deepStrictEqual(yield* engineCheck(["--engine", `unix://${other.path}`], env), [
        "ok",
        `version 29.0.0 at ${other.path}`
      ])
      assert.deepStrictEqual([one.asked.length, other.asked.length], [2, 2])
    }).pipe(Effect.scoped)
  )

  it.live("is a usage error where --engine is no valid address", () =>
    Effect.map(portmapper(["doctor", "--engine", "localhost"]), ({ status, stdout, stderr }) =>
      assert.deepStrictEqual(
        [status, stdout, stderr],
        [
          2,
          "",
          'portmapper: doctor: --engine "localhost": expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT; see: portmapper doctor --help\n'
        ]
      )
    )
  )
})

describe("the services that doctor looks at", () => {
  it.live("names a service of which every backend is drained", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const services = Effect.map(ask("doctor --json"), ({ stdout }) =>
          (JSON.parse(stdout).checks as ReadonlyArray<Record<string, string>>).flatMap(
            ({ name, found, remedy }) => (name === "services" ? [[found, remedy]] : [])
          )
        )
        for (const number of [2, 3])
          yield* ask(`map -p 0.0.0.0:8080:80 --to 172.17.0.${number} --label portmapper.share=web`)
        const drain = (backend: string) =>
          Driver.use(
            (driver) =>
              driver.drain?.({ backend, addresses: [addressUnsafe(backend)], ports: [], drained: true }) ??
              Effect.die("not offered")
          ).pipe(Effect.provideService(CurrentOwner, "cli"))
        yield* drain("172.17.0.2")
        assert.deepStrictEqual(yield* services, [["each has a backend that takes connections", undefined]])
        yield* drain("172.17.0.3")
        assert.deepStrictEqual(yield* services, [
          [
            "no backend of service web at 0.0.0.0:8080/tcp takes connections: 172.17.0.2:80: drained (and 1 more)",
            "portmapper undrain 172.17.0.2"
          ]
        ])
      })
    )
  )
})
