/** Several groups in one call: the same result as one after the other, in one change of the record and the kernel. */
import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { Steps } from "../../src/memory/Steps.ts"
import { MemoryHost } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { mapGroupsTogether } from "../../src/protocol/Operations.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { testMapper as test } from "../support/calls.ts"
import { bindingText, group } from "../support/groups.ts"
import { host, leavesNothing, nothing, unmapAll } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const map = (groups: ReadonlyArray<Group>) => Effect.scoped(mapGroupsTogether(groups))
const mapped = (groups: ReadonlyArray<Group>) =>
  Effect.map(map(groups), (answers) => answers.map((bindings) => bindings.map(bindingText)))
const refused = (groups: ReadonlyArray<Group>) =>
  Effect.map(Effect.flip(map(groups)), ({ message }) => message)

const web = group("8080", ["tcp 0.0.0.0 172.17.0.2:80", "tcp :: 172.17.0.2:80"])
const dns = group("5353", ["udp 0.0.0.0 172.17.0.2:53"], { "portmapper.allow": "10.0.0.0/8" })
const any = group("0", ["tcp 0.0.0.0 172.17.0.3:90"])

describe("several groups in one call", () => {
  test("get an answer for each group, with one step of each kind", () =>
    Effect.gen(function* () {
      const steps: Array<string> = []
      const answers = yield* Effect.provideService(mapped([web, dns, any]), Steps, (step) =>
        Effect.sync(() => void steps.push(step))
      )
      assert.deepStrictEqual(answers, [
        ["0.0.0.0:8080/tcp -> 172.17.0.2:80, forward", "[::]:8080/tcp -> 172.17.0.2:80"],
        ["0.0.0.0:5353/udp -> 172.17.0.2:53, forward"],
        ["0.0.0.0:49153/tcp -> 172.17.0.3:90, forward"]
      ])
      const counted = (name: string) => steps.filter((step) => step === name).length
      // The record: applied, answered.
      assert.deepStrictEqual(
        ["HostSockets.open", "MappingStore.put", "Firewall.apply", "Relay.open"].map(counted),
        [4, 2, 1, 4]
      )
      const together = yield* host
      yield* unmapAll
      for (const each of [web, dns, any]) yield* map([each])
      const apart = yield* host
      assert.deepStrictEqual(
        together.rules.filter((rule) => !rule.includes("172.17.0.3")),
        apart.rules.filter((rule) => !rule.includes("172.17.0.3"))
      )
      assert.deepStrictEqual(yield* mapped([]), [])
    }))

  test("leave nothing after a failure or an interruption at any step", () =>
    leavesNothing((done) => Effect.scoped(Effect.tap(mapGroupsTogether([web, dns, any]), done))))

  test("leave no socket where one of them gives up the host port that another one got", () =>
    atEveryStep(
      (done) => {
        const routed = { ...web, labels: new Map([["portmapper.mode", "routed"]]) }
        return Effect.scoped(Effect.tap(mapGroupsTogether([web, routed]), done))
      },
      (how, step) =>
        Effect.gen(function* () {
          assert.deepStrictEqual(yield* host, nothing, `${how} at ${step}`)
        }),
      unmapAll
    ))

  test("are all refused where one of them is, the error names that one, and nothing changes", () =>
    Effect.gen(function* () {
      const sockets = yield* MemoryHost
      yield* map([web])
      const before = yield* host
      const other = group("8080", ["tcp 0.0.0.0 172.17.0.9:80"])
      assert.match(
        yield* refused([dns, any, other]),
        /^Groups\[2\]: bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated \(held by engine/
      )
      sockets.take("udp", addressUnsafe("0.0.0.0"), 5353)
      assert.match(
        yield* refused([any, dns]),
        /^Groups\[1\]: bind for 0\.0\.0\.0:5353\/udp failed: address already in use$/
      )
      const wrong = group("9000", ["tcp 0.0.0.0 172.17.0.4:80"], { "portmapper.mode": "NAT" })
      assert.match(yield* refused([any, wrong]), /Groups\[1\]\.Labels\["portmapper\.mode"\] = "NAT"/)
      assert.deepStrictEqual(yield* host, before)
    }))

  test("with equal frontends are rolled back together, policies included, where one of them is refused", () =>
    Effect.gen(function* () {
      yield* map([web])
      const before = yield* host
      const limited = { ...web, labels: dns.labels }
      const elsewhere = group("8080", ["tcp 0.0.0.0 172.17.0.9:80"])
      assert.match(yield* refused([limited, elsewhere]), /^Groups\[1\]: .* port is already allocated/)
      assert.deepStrictEqual(yield* host, before)
    }))

  test("for the same ports are mapped one after the other", () =>
    Effect.gen(function* () {
      const again = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])
      const elsewhere = group("8080", ["tcp 0.0.0.0 172.17.0.9:80"])
      const routed = group("0", ["tcp 0.0.0.0 172.17.0.5:80"], { "portmapper.mode": "routed" })
      assert.strictEqual((yield* mapped([again, again, routed, routed])).length, 4)
      assert.strictEqual((yield* host).stored.length, 2)
      yield* unmapAll
      assert.match(
        yield* refused([any, again, elsewhere]),
        /^Groups\[2\]: bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated/
      )
      assert.deepStrictEqual(yield* host, nothing)
    }))
})
