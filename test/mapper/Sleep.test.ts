import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Result } from "effect"
import { parsePolicy, sharedPolicy } from "../../src/mapper/model/Labels.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { group } from "../support/groups.ts"

const web = "tcp 0.0.0.0 172.17.0.2:80"

const labels = (record: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(record).map(([name, value]) => [`portmapper.${name}`, value]))

const policyOf = (record: Readonly<Record<string, string>>) =>
  parsePolicy(new Map(Object.entries(labels(record))))

const map = (asked: Group) =>
  Effect.scoped(Driver.use((driver) => driver.mapPorts(asked))).pipe(Effect.provide(PortMapper.layerMemory()))

const refused = (asked: Group) => Effect.map(Effect.flip(map(asked)), ({ message }) => message)

describe("the labels of a container that sleeps", () => {
  it("say whether a client wakes it, how long it waits, how many it wakes, and when it is stopped again", () => {
    assert.deepInclude(
      Result.getOrUndefined(policyOf({ wake: "on", "wake-timeout": "90s", "wake-count": "3", sleep: "10m" })),
      { wake: true, wakeTimeout: Duration.seconds(90), wakeCount: 3, sleep: Duration.minutes(10) }
    )
    assert.deepInclude(Result.getOrUndefined(policyOf({ wake: "off" })), { wake: false })
  })

  for (const [name, value, rule] of [
    ["wake", "yes", "on or off"],
    ["wake", "", "on or off"],
    ["wake-timeout", "0s", "a duration of at least 1s"],
    ["wake-timeout", "soon", "a duration such as 90s or 5m"],
    ["wake-count", "0", "a number from 1 to 1024"],
    ["wake-count", "1025", "a number from 1 to 1024"],
    ["wake-count", "1.5", "a number from 1 to 1024"],
    ["sleep", "9s", "a duration of at least 10s"],
    ["sleep", "10", "a duration such as 90s or 5m"]
  ] as const)
    it(`are refused as portmapper.${name}=${value}`, () => {
      assert.strictEqual(
        Result.getOrUndefined(Result.flip(policyOf({ [name]: value })))?.message,
        `bad request: Labels["portmapper.${name}"] = ${JSON.stringify(value)}: must be ${rule}`
      )
    })

  it.effect("are refused where no client could wake it", () =>
    Effect.gen(function* () {
      const followed = { container: "web/0123456789ab", wake: "on" }
      assert.strictEqual(
        yield* refused(group("8080", [web], labels({ ...followed, mode: "routed" }))),
        'bad request: Labels["portmapper.wake"] = "on": must be beside mode nat or proxy (not routed)'
      )
      assert.strictEqual(
        yield* refused(group("8080", ["sctp 0.0.0.0 172.17.0.2:80"], labels(followed))),
        'bad request: Labels["portmapper.wake"] = "on": must be beside ports of TCP and UDP alone'
      )
      for (const [name, value] of Object.entries({ "wake-timeout": "5s", "wake-count": "2", sleep: "10m" }))
        for (const wake of [{}, { wake: "off" }])
          assert.strictEqual(
            yield* refused(group("8080", [web], labels({ [name]: value, ...wake }))),
            `bad request: Labels["portmapper.${name}"] = "${value}": must be beside portmapper.wake=on, by which a client starts the container`
          )
    })
  )

  it.effect(
    "are refused for addresses, and accepted with the labels of a container that watch publishes",
    () =>
      Effect.gen(function* () {
        const atAddress = { to: "172.17.0.2", publish: "eth0:8080:80" }
        for (const more of [{}, { sleep: "10m" }, atAddress])
          assert.strictEqual(
            yield* refused(group("8080", [web], labels({ wake: "on", ...more }))),
            'bad request: Labels["portmapper.wake"] = "on": must be off, or not given, where an address is published: serve --watch starts only a container that it publishes itself, by its labels or for portmapper map --to CONTAINER'
          )
        for (const more of [{ container: "web/0123456789ab" }, { publish: "9090:90" }])
          assert.lengthOf(yield* map(group("8080", [web], labels({ wake: "on", ...more }))), 1)
      })
  )

  it("must be equal in a service, where a default that is written out is the same as none", () => {
    const shared = (record: Readonly<Record<string, string>>) =>
      sharedPolicy(new Map(Object.entries(labels(record))))
    assert.deepStrictEqual(shared({ wake: "off", "wake-timeout": "30s", "wake-count": "1" }), shared({}))
    for (const record of [{ wake: "on" }, { "wake-timeout": "5s" }, { "wake-count": "2" }, { sleep: "1m" }])
      assert.notDeepEqual(shared(record), shared({}))
  })
})
