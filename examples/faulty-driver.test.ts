/**
 * A property test: it draws scripts of calls, failures and restarts from a seed, checks each step against the model
 * of the protocol, and shrinks a failing script. Here it finds a mapper that forgets part of what it should unmap.
 */
import assert from "node:assert/strict"
import { test } from "node:test"
import type { Driver } from "portmapper"
import { explore, foundText, type ModelHost, memoryTarget } from "portmapper/testing"

const host: ModelHost = {
  ephemeral: { range: { first: 40_000, last: 40_007 }, reserved: [] },
  capabilities: {
    defaultMode: "nat",
    natUnavailable: undefined,
    marksAccepted: false,
    ipv6: true,
    relayed: ["tcp", "udp"]
  }
}

const forgetful = (driver: Driver["Service"]): Driver["Service"] => ({
  ...driver,
  unmapPorts: ({ bindings, labels }) => driver.unmapPorts({ bindings: bindings.slice(1), labels })
})

test("the built-in mapper does what it must", () => {
  const found = explore({ seed: 1, runs: 100, host, target: () => memoryTarget(host) })
  assert.equal(found && foundText(found, host), undefined)
})

test("a forgetful mapper is found, by a script of a step or two that is the same each time", () => {
  const find = () =>
    explore({ seed: 1, runs: 100, host, target: () => memoryTarget({ ...host, wrap: forgetful }) })
  const found = find()
  assert.ok(found !== undefined && found.script.length <= 2, found && foundText(found, host))
  assert.deepEqual(find(), found)
})
