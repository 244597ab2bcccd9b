import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { type Capabilities, planGroup, selfMappingIssues } from "../../src/mapper/plan/Plan.ts"
import { group } from "../support/groups.ts"

const capabilities: Capabilities = {
  defaultMode: "proxy",
  natUnavailable: undefined,
  marksAccepted: false,
  ipv6: true,
  relayed: ["tcp", "udp"]
}

describe("selfMappingIssues", () => {
  for (const entry of [
    "tcp 0.0.0.0 127.0.0.1:8080",
    "tcp 0.0.0.0 127.0.0.9:8080",
    "udp 0.0.0.0 0.0.0.0:8080",
    "tcp 127.0.0.1 0.0.0.0:8080",
    "tcp 127.0.0.2 127.0.0.2:8080",
    "tcp 10.99.0.1 10.99.0.1:8080",
    "udp :: [::1]:8080",
    "tcp :: [::]:8080",
    "tcp ::1 [::]:8080",
    "tcp fd99::1 [fd99::1]:8080",
    "tcp 0.0.0.0 [::ffff:127.0.0.1]:8080"
  ])
    it(`finds that ${entry} on port 8080 leads to itself`, () =>
      assert.strictEqual(selfMappingIssues(group("8080", [entry])).length, 1))

  for (const [ports, entry] of [
    ["8081", "tcp 0.0.0.0 127.0.0.1:8080"],
    ["8080", "tcp 0.0.0.0 172.17.0.2:8080"],
    ["8080", "tcp 10.99.0.1 127.0.0.1:8080"],
    ["8080", "tcp 127.0.0.2 127.0.0.1:8080"],
    ["8080", "tcp 127.0.0.2 0.0.0.0:8080"],
    ["8080", "tcp 10.99.0.1 0.0.0.0:8080"],
    ["8080", "tcp :: 127.0.0.1:8080"],
    ["8080", "tcp 0.0.0.0 [::1]:8080"],
    // Their port is not chosen yet.
    ["0", "tcp 0.0.0.0 127.0.0.1:8080"],
    ["8080-8090", "tcp 0.0.0.0 127.0.0.1:8080"]
  ] as const)
    it(`accepts ${entry} on port ${ports}`, () =>
      assert.deepStrictEqual(selfMappingIssues(group(ports, [entry])), []))
})

describe("planGroup", () => {
  it("refuses a mapping that leads to itself with its entry, port and rule, in each mode that reserves a port", () => {
    const entries = ["tcp 0.0.0.0 172.17.0.2:80", "udp 0.0.0.0 127.0.0.1:8080"]
    for (const mode of ["proxy", "nat", "engine"]) {
      const plan = planGroup(group("8080", entries, { "portmapper.mode": mode }), capabilities)
      assert.strictEqual(
        Result.isFailure(plan) ? plan.failure.message : "",
        "bad request: Reqs[1].BackendPort = 8080: must be another port than FrontendPort, since 0.0.0.0:8080/udp takes in what is sent to 127.0.0.1: the mapping would lead to itself"
      )
    }
  })

  it("accepts a mapping without a host port, with any backend", () => {
    const asked = group("8080", ["tcp 0.0.0.0 127.0.0.1:8080"], { "portmapper.mode": "routed" })
    assert.isTrue(Result.isSuccess(planGroup(asked, capabilities)))
  })
})
