import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { parsePolicy } from "../../src/mapper/model/Labels.ts"
import { map, refused, testMapper as test } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { host } from "../support/memoryHost.ts"

const web = "tcp 0.0.0.0 172.17.0.2:80"

const held = Effect.map(host, ({ rules, routes }) => ({ rules, routes }))

const connections = { "portmapper.connections": "5" }
const rate = { "portmapper.rate": "20/s" }
const perSource = { "portmapper.rate-per-source": "3/s" }

const redirected = (limits = "") => ({
  rules: [`Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80${limits}`],
  routes: [`0.0.0.0:8080/tcp -> 172.17.0.2:80 admits loopback${limits}`]
})
const relayed = (limits: string) => ({
  rules: [],
  routes: [`0.0.0.0:8080/tcp -> 172.17.0.2:80 admits everything${limits}`]
})

describe("the labels of limits", () => {
  it("have numbers from one to a million, of rates by second", () => {
    const policy = parsePolicy(
      new Map([
        ["portmapper.connections", "1000000"],
        ["portmapper.rate", "1/s"],
        ["portmapper.rate-per-source", "20/s"]
      ])
    )
    assert.deepInclude(Result.getOrUndefined(policy), {
      connections: 1_000_000,
      rate: 1,
      ratePerSource: 20
    })
  })

  for (const [name, value] of [
    ...["", "0", "-1", "1.5", "05", "1000001", "ten", "5/s", " 5"].map((value) => ["connections", value]),
    ...["", "/s", "0/s", "20", "20/m", "20 /s", "1000001/s", "1e3/s"].flatMap((value) => [
      ["rate", value],
      ["rate-per-source", value]
    ])
  ] as const)
    it(`are refused as portmapper.${name}=${value}`, () => {
      const parsed = parsePolicy(new Map([[`portmapper.${name}`, value ?? ""]]))
      const rule =
        name === "connections"
          ? "a number from 1 to 1000000"
          : "a number from 1 to 1000000 with /s behind it, such as 20/s"
      assert.strictEqual(
        Result.isFailure(parsed) ? parsed.failure.message : "",
        `bad request: Labels["portmapper.${name}"] = ${JSON.stringify(value)}: must be ${rule}`
      )
    })
})

describe("a mapping with limits", () => {
  test("has its rate in the kernel and in the relay", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web], rate))
      assert.deepStrictEqual(yield* held, redirected(" at most 20/s"))
      yield* map(group("8080", [web], { "portmapper.rate": "30/s" }))
      assert.deepStrictEqual(yield* held, redirected(" at most 30/s"))
      yield* map(group("8080", [web]))
      assert.deepStrictEqual(yield* held, redirected())
    }))

  test("is relayed for every client where only the relay has them, as long as it has them", () =>
    Effect.gen(function* () {
      yield* map(group("8080", [web]))
      yield* map(group("8080", [web], connections))
      assert.deepStrictEqual(yield* held, relayed(" at most 5 open"))
      yield* map(group("8080", [web], { ...rate, ...perSource, "portmapper.mode": "auto" }))
      assert.deepStrictEqual(yield* held, relayed(" at most 20/s, 3/s from one source"))
      yield* map(group("8080", [web], { ...connections, ...perSource, "portmapper.mode": "proxy" }))
      assert.deepStrictEqual(yield* held, relayed(" at most 5 open, 3/s from one source"))
      yield* map(group("8080", [web], rate))
      assert.deepStrictEqual(yield* held, redirected(" at most 20/s"))
    }))

  test(
    "is relayed where the host's own mode has no rate",
    () =>
      Effect.gen(function* () {
        yield* map(group("8080", [web], rate))
        assert.deepStrictEqual(yield* held, relayed(" at most 20/s"))
      }),
    { defaultMode: "engine" }
  )

  for (const [labels, label, value, modes, lacking] of [
    [connections, "connections", "5", "proxy", ["nat", "engine", "routed"]],
    [rate, "rate", "20/s", "nat or proxy", ["engine", "routed"]],
    [perSource, "rate-per-source", "3/s", "proxy", ["nat", "engine", "routed"]]
  ] as const)
    for (const mode of lacking)
      test(`is refused with ${label} in mode ${mode}`, () =>
        Effect.gen(function* () {
          assert.strictEqual(
            yield* refused(group("8080", [web], { ...labels, "portmapper.mode": mode })),
            `RequestError: bad request: Labels["portmapper.${label}"] = "${value}": must be in mode ${modes}, or without portmapper.mode (not in mode ${mode})`
          )
          assert.deepStrictEqual(yield* held, { rules: [], routes: [] })
        }))

  test("needs them equal in all backends of a service", () =>
    Effect.gen(function* () {
      const backend = (number: number, labels: Readonly<Record<string, string>>) =>
        group("8080", [`tcp 0.0.0.0 172.17.0.${number}:80`], { "portmapper.share": "web", ...labels })
      yield* map(backend(2, { ...rate, "portmapper.mode": "nat" }))
      yield* map(backend(3, { ...rate, "portmapper.mode": "nat" }))
      assert.strictEqual(
        yield* refused(backend(4, { "portmapper.rate": "21/s", "portmapper.mode": "nat" })),
        "ServiceRefused: bind for 0.0.0.0:8080/tcp failed: a backend of service web needs portmapper.rate=20/s, like the others (not portmapper.rate=21/s)"
      )
      assert.deepStrictEqual((yield* held).rules, [
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80 slots 32-63 of 64 by random at most 20/s",
        "Redirect 0.0.0.0:8080/tcp -> 172.17.0.3:80 slots 0-31 of 64 by random at most 20/s"
      ])
    }))
})
