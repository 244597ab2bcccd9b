import { assert, describe } from "@effect/vitest"
import { Effect } from "effect"
import { FirewallError, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { InjectedFailure, Steps } from "../../src/memory/Steps.ts"
import { parseSlots } from "../../src/protocol/Slots.ts"
import { map, testMapper as test, unmap, unmapGroup } from "../support/calls.ts"
import { group } from "../support/groups.ts"
import { host, type MemoryServices, nothing } from "../support/memoryHost.ts"
import { atEveryStep } from "../support/steps.ts"

const web = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])
const replica = (number: number) =>
  group("8080", [`tcp 0.0.0.0 172.17.0.${number}:80`], { "portmapper.share": "web" })

describe("a release", () => {
  test("takes away the record first, then the redirection, and frees the port last", () =>
    Effect.gen(function* () {
      yield* map(web)
      const steps: Array<string> = []
      const look = Effect.map(host, (held) =>
        Object.entries(held).flatMap(([what, all]) => (all.length > 0 ? [what] : []))
      )
      const context = yield* Effect.context<MemoryServices>()
      yield* Effect.provideService(unmapGroup(web), Steps, (step) =>
        Effect.map(Effect.provideContext(look, context), (left) => void steps.push(`${step}: ${left.join()}`))
      )
      assert.deepStrictEqual(steps, [
        "MappingStore.remove: sockets,rules,routes,stored",
        "Firewall.apply: sockets,rules,routes"
      ])
      assert.deepStrictEqual(yield* host, nothing)
    }))

  test("of several goes on where one of them can't be released, and names that one", () =>
    Effect.gen(function* () {
      const several = group("8080", [
        "tcp 0.0.0.0 172.17.0.2:80",
        "udp 0.0.0.0 172.17.0.2:80",
        "tcp :: [fd00::2]:80"
      ])
      const bindings = yield* map(several)
      // All together, then one by one.
      let count = 0
      const failed = yield* Effect.flip(unmap(bindings)).pipe(
        Effect.provideService(Steps, (step) =>
          step === "Firewall.apply" && ++count !== 2 && count !== 4
            ? Effect.fail(new InjectedFailure({ step }))
            : Effect.void
        )
      )
      assert.strictEqual(
        failed.message,
        "unmapping 0.0.0.0:8080/udp failed: apply failed: injected failure at Firewall.apply"
      )
      assert.deepStrictEqual((yield* host).stored, ["0.0.0.0:8080 answered"])
      assert.deepStrictEqual((yield* host).rules, ["Redirect 0.0.0.0:8080/udp -> 172.17.0.2:80"])
    }))

  test("of a backend that fails at any step loses no slot of its service", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      yield* map(replica(3))
      yield* atEveryStep(
        (done) => Effect.andThen(unmapGroup(replica(3)), done),
        (how, step) =>
          Effect.gen(function* () {
            const { rules: lines, routes } = yield* host
            const slots = (texts: ReadonlyArray<string>) =>
              texts.flatMap((text) => parseSlots(/slots (\S+) of/.exec(text)?.[1] ?? "") ?? []).length
            assert.strictEqual(slots(lines), 64, `${how} at ${step}`)
            assert.strictEqual(slots(routes), 64, `${how} at ${step}`)
          }),
        Effect.andThen(host, map(replica(3)))
      )
    }))

  test("that the kernel refuses names the backend, and leaves it mapped", () =>
    Effect.gen(function* () {
      yield* map(replica(2))
      yield* map(replica(3))
      const before = yield* host
      const firewall = yield* MemoryFirewall
      firewall.refuse(new FirewallError({ reason: "Failed", operation: "change", detail: "busy" }))
      assert.strictEqual(
        (yield* Effect.flip(unmapGroup(replica(3)))).message,
        "unmapping 0.0.0.0:8080/tcp to 172.17.0.3:80 failed: change failed: busy"
      )
      firewall.refuse(undefined)
      assert.deepStrictEqual(yield* host, before)
    }))

  test("that the kernel refuses is in the record again before its call fails, although recording fails at first, too", () =>
    Effect.gen(function* () {
      const bindings = yield* map(web)
      const before = yield* host
      const failures = new Set(["Firewall.apply", "MappingStore.put"])
      const failed = yield* Effect.flip(unmap(bindings)).pipe(
        Effect.provideService(Steps, (step) =>
          failures.delete(step) ? Effect.fail(new InjectedFailure({ step })) : Effect.void
        )
      )
      assert.include(failed.message, "8080")
      assert.deepStrictEqual([...failures], [])
      assert.deepStrictEqual(yield* host, before)
    }))
})
