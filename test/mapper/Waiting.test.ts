import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import { parsePolicy } from "../../src/mapper/model/Labels.ts"
import { sleepIssues, waitingFor } from "../../src/mapper/plan/Waiting.ts"
import { group } from "../support/groups.ts"

const web = "tcp 0.0.0.0 172.17.0.2:80"
const labels = (own: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(own).map(([name, value]) => [`portmapper.${name}`, value]))
const policyOf = (own: Readonly<Record<string, string>>) =>
  Result.getOrThrow(parsePolicy(new Map(Object.entries(labels(own)))))

describe("a client of a backend that takes no connections", () => {
  for (const [own, seconds] of [
    [{}, undefined],
    [{ idle: "waiting" }, undefined],
    [{ idle: "waiting", "wait-healthy": "5s", "wake-timeout": "90s" }, 5],
    [{ idle: "asleep" }, 30],
    [{ idle: "waking" }, 30],
    [{ idle: "asleep", "wake-timeout": "5s" }, 5],
    [{ idle: "asleep", "wake-timeout": "5s", "wait-healthy": "60s" }, 60],
    [{ idle: "failed", "wake-timeout": "5s", "wait-healthy": "60s" }, undefined]
  ] as const)
    it(`${seconds === undefined ? "is refused at once" : `waits ${seconds} s`} by ${JSON.stringify(own)}`, () =>
      assert.deepStrictEqual(
        waitingFor(policyOf(own)),
        seconds === undefined ? {} : { waitHealthy: Duration.seconds(seconds) }
      ))
})

describe("a container that sleeps", () => {
  const issues = (
    own: Readonly<Record<string, string>>,
    mode: Parameters<typeof sleepIssues>[1] = "nat",
    entries: ReadonlyArray<string> = [web]
  ) =>
    sleepIssues(group("8080", entries, labels(own)), mode, policyOf(own)).map(
      ({ path, value, rule }) => `${path} = ${value}: ${rule}`
    )

  it("is refused where no client could wake it, with the label and the rule", () => {
    for (const mode of ["routed", "engine"] as const)
      assert.deepStrictEqual(issues({ wake: "on" }, mode), [
        `Labels["portmapper.wake"] = "on": beside mode nat or proxy (not ${mode})`
      ])
    assert.deepStrictEqual(issues({ wake: "on" }, "nat", [web, "sctp 0.0.0.0 172.17.0.2:80"]), [
      'Labels["portmapper.wake"] = "on": beside ports of TCP and UDP alone'
    ])
  })

  it("is accepted with ports of TCP and UDP in mode nat or proxy", () => {
    for (const mode of ["nat", "proxy"] as const)
      assert.deepStrictEqual(
        issues({ wake: "on", sleep: "10m" }, mode, [web, "udp 0.0.0.0 172.17.0.2:80"]),
        []
      )
    assert.deepStrictEqual(issues({}, "routed"), [])
  })
})
