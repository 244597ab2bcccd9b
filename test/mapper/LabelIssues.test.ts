import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { policyOf } from "../../src/mapper/plan/LabelIssues.ts"

/** `accepted`, or what is wrong with these labels of the mapper, each as `LABEL = VALUE: RULE`. */
const verdict = (own: Readonly<Record<string, string>>) =>
  Result.match(policyOf(new Map(Object.entries(own).map(([name, value]) => [`portmapper.${name}`, value]))), {
    onSuccess: () => "accepted",
    onFailure: ({ issues }) => issues.map(({ path, value, rule }) => `${path} = ${value}: ${rule}`).join("; ")
  })

const followed = { container: "web/0123456789ab", publish: "eth0:8080:80" }
const atAddress = { to: "172.17.0.2", publish: "eth0:8080:80" }

describe("labels of a container that sleeps", () => {
  it("are refused where no client could wake it: they are for a container that watch publishes", () => {
    for (const more of [{}, { sleep: "10m" }, atAddress])
      assert.strictEqual(
        verdict({ wake: "on", ...more }),
        'Labels["portmapper.wake"] = "on": off, or not given, where an address is published: serve --watch starts only a container that it publishes itself, by its labels or for portmapper map --to CONTAINER'
      )
    for (const more of [followed, { publish: "9090:90" }, { ...followed, sleep: "10m", "wake-count": "2" }])
      assert.strictEqual(verdict({ wake: "on", ...more }), "accepted")
  })

  it("are refused without the one by which a client starts it", () => {
    for (const [name, value] of Object.entries({ "wake-timeout": "5s", "wake-count": "2", sleep: "10m" }))
      for (const wake of [{}, { wake: "off" }])
        assert.strictEqual(
          verdict({ ...followed, ...wake, [name]: value }),
          `Labels["portmapper.${name}"] = "${value}": beside portmapper.wake=on, by which a client starts the container`
        )
  })
})

it("labels of a port at an interface are refused in mode routed, which has no address", () => {
  for (const at of [followed, atAddress])
    assert.strictEqual(
      verdict({ ...at, mode: "routed" }),
      'Labels["portmapper.mode"] = "routed": another one at the interface eth0: mode routed has no host port, so it is published at no address'
    )
  // What an Engine passes is not followed.
  assert.strictEqual(verdict({ publish: "eth0:8080:80", mode: "routed" }), "accepted")
  assert.strictEqual(verdict({ ...followed, publish: "8080:80", mode: "routed" }), "accepted")
})

it("labels that need another one or another mode are refused together", () => {
  assert.strictEqual(
    verdict({ mode: "nat", "proxy-protocol": "v2", connections: "5", balance: "source" }),
    [
      'Labels["portmapper.mode"] = "nat": proxy, or not given, beside portmapper.proxy-protocol: only the relay sends the header',
      'Labels["portmapper.connections"] = "5": in mode proxy, or without portmapper.mode (not in mode nat)',
      'Labels["portmapper.balance"] = "source": beside a portmapper.share'
    ].join("; ")
  )
})
