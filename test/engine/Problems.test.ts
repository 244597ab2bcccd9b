import { assert, describe, it } from "@effect/vitest"
import { problemOf } from "../../adapters/engine/Desired.ts"
import { concerns, listedProblem, problemsText, standingFrom } from "../../adapters/engine/Problems.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { container, desired } from "./containers.ts"

const group = (publish: string) => desired(container("web"), { "portmapper.publish": publish }).groups[0]
const [exact, range, ephemeral] = ["127.0.0.1:8080:80", "127.0.0.1:7000-7010:81", "127.0.0.1::82"].map(group)
if (exact === undefined || range === undefined || ephemeral === undefined) throw new Error("three groups")

const taken = "port is already allocated"
const problem = problemOf(exact, taken, false)

describe("a problem of a container", () => {
  it("is logged with the container, what it published and why, and how many more there are", () => {
    assert.strictEqual(
      problemsText([problem, problem]),
      "web: not published: 127.0.0.1:8080:80: port is already allocated (and 1 more)"
    )
    assert.strictEqual(
      problemsText([{ ...problem, waiting: true, publish: undefined, detail: "it does not run" }]),
      "web: waiting: it does not run"
    )
    assert.strictEqual(problemsText([]), "")
  })

  it("keeps its time while it stands", () => {
    const first = standingFrom([problem], new Map(), 1000)
    const second = standingFrom([problem, problemOf(range, taken, false)], first, 2000)
    assert.deepStrictEqual(
      [...second.values()].map(({ sinceMillis }) => sinceMillis),
      [1000, 2000]
    )
    assert.strictEqual(standingFrom([], second, 3000).size, 0)
  })

  it("concerns a release of the port that it asks for or had, on its address", () => {
    const released = (port: number, host = "127.0.0.1") =>
      ({
        protocol: "tcp",
        host: addressUnsafe(host),
        port,
        backend: { address: undefined, port: 0 }
      }) as const
    const granted = new Map([[ephemeral.key, 40_000]])
    assert.isTrue(concerns(problem, released(8080), granted))
    assert.isFalse(concerns(problem, released(8081), granted))
    assert.isFalse(concerns(problem, released(8080, "10.0.0.1"), granted))
    assert.isTrue(concerns(problemOf(range, taken, false), released(7000), granted))
    assert.isTrue(concerns(problemOf(ephemeral, taken, false), released(40_000), granted))
    assert.isFalse(concerns({ ...problem, desired: undefined }, released(8080), granted))
  })

  it("is listed as conflicted, with its reason among the labels", () => {
    const listed = listedProblem({ problem, sinceMillis: 5 }, new Map())
    assert.deepStrictEqual(
      [listed.state, listed.frontendIp, listed.frontendPort, listed.backendIp, listed.sinceMillis],
      ["conflicted", "127.0.0.1", 8080, "172.17.0.2", 5]
    )
    assert.strictEqual(listed.labels.get("portmapper.error"), "port is already allocated")
  })
})
