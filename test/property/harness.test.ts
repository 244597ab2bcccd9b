import { assert, describe, it } from "@effect/vitest"
import {
  type Call,
  explore,
  exploreTogether,
  type Fate,
  foundText,
  memoryTarget,
  run,
  type Script,
  type Step,
  unexplainedText,
  type WireMapAnswer
} from "../../src/testing/index.ts"
import { wireEntry } from "../support/requests.ts"
import { hosts } from "./hosts.ts"
import { runs, search, seed } from "./seed.ts"

console.log(`the harness's seed: PORTMAPPER_SEED=${seed}`)

describe("the mapper, compared with the model", () => {
  for (const [name, host] of Object.entries(hosts)) {
    it(`agrees with it on a host of ${name}, one call after the other`, () => {
      const target = () => memoryTarget(host)
      const { found } = search((from) => explore({ seed: from, runs, host, target }))
      if (found !== undefined) assert.fail(foundText(found, host, "../../src/testing/index.ts"))
    })

    it(`serializes concurrent clients on a host of ${name}`, () => {
      const target = () => memoryTarget(host)
      const { found } = search((from) => exploreTogether({ seed: from, runs, host, target }))
      if (found !== undefined) assert.fail(unexplainedText(found))
    })
  }
})

describe("the model", () => {
  it("lets a full range evict what an Engine of long ago left in it, and nothing else", () => {
    const host = hosts["nat"]
    if (host === undefined) throw new Error("there is no such host")
    const map = (backend: string, owner = "engine"): Step => ({
      do: "map",
      reqs: [wireEntry(`tcp 0.0.0.0:8081-8082 ${backend}:80`)],
      labels: {},
      owner,
      fate: undefined
    })
    const outcomes: Array<string> = []
    const recording = () => {
      const target = memoryTarget(host)
      return {
        ...target,
        call: (call: Call, fate: Fate) => {
          const ended = target.call(call, fate)
          const { outcome } = ended
          outcomes.push(outcome._tag === "Answered" ? portsOf(outcome.answer) : outcome._tag)
          return ended
        }
      }
    }
    const script: Script = [
      map("172.17.0.2", "cli"),
      map("172.17.0.3"),
      map("172.17.0.4"),
      { do: "otherEngine" },
      map("172.17.0.4"),
      map("172.17.0.5")
    ]
    assert.isUndefined(run(script, host, recording()))
    assert.deepStrictEqual(outcomes, ["8081", "8082", "Refused", "", "9000", "8082", "Refused", ""])
  })
})

const portsOf = (answer: unknown): string =>
  ((answer as Partial<WireMapAnswer>).PortBindings ?? []).map(({ FrontendPort }) => FrontendPort).join()

describe("the harness", () => {
  const host = hosts["nat"]
  if (host === undefined) throw new Error("there is no such host")

  const web = wireEntry("tcp 0.0.0.0:8080 172.17.0.2:80")
  const forgetful = () =>
    memoryTarget({
      ...host,
      wrap: (driver) => ({
        ...driver,
        unmapPorts: ({ bindings, labels }) => driver.unmapPorts({ bindings: bindings.slice(1), labels })
      })
    })

  it("finds a fault, shrinks the script, and finds the fault again from the same seed", () => {
    const first = explore({ seed: 7, runs: 500, host, target: forgetful })
    const second = explore({ seed: 7, runs: 500, host, target: forgetful })
    assert.isDefined(first)
    assert.deepStrictEqual(first, second)
    assert.strictEqual(first?.script.filter((step) => step.do === "map").length, 1)
    assert.isAtMost(first?.script.length ?? 0, 2)
  })

  it("prints a failure as a program and as JSON-RPC lines", () => {
    const script: Script = [
      { do: "map", reqs: [web], labels: {}, owner: "cli", fate: undefined },
      { do: "unmap", of: 0, entry: "all", fate: undefined }
    ]
    const violation = run(script, host, forgetful())
    if (violation === undefined) return assert.fail("the fault was not found")
    const text = foundText({ seed: 1, script, violation }, host)
    assert.include(
      text,
      "step 2 of 2 broke rule held: rules: should not have Redirect 0.0.0.0:8080/tcp -> 172.17.0.2:80\n"
    )
    assert.include(
      text,
      '{"jsonrpc":"2.0","id":1,"method":"PortMapper.MapPorts","params":{"Reqs":[{"Proto":6,"BackendIP":"172.17.0.2","BackendPort":80,"FrontendIP":"0.0.0.0","FrontendPort":8080,"FrontendPortEnd":8080}],"Labels":{},"Owner":"cli"}}'
    )
    assert.include(text, 'from "portmapper/testing"')
  })

  it("runs the same in the same order at any time on the clock", () => {
    const calls = () => {
      const seen: Array<string> = []
      explore({
        seed: 11,
        runs: 30,
        host,
        target: () => {
          const target = memoryTarget(host)
          return {
            ...target,
            call: (call, fate) => {
              const ended = target.call(call, fate)
              seen.push(JSON.stringify([call, fate, ended]))
              return ended
            }
          }
        }
      })
      return seen
    }
    assert.deepStrictEqual(calls(), calls())
  })
})
