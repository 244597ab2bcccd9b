import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Firewall, FirewallError, type Guard, MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { withOwnPorts } from "../../src/firewall/OwnPorts.ts"
import { guard, redirect } from "./firewallConformance.ts"

describe("the guards of the plugin's own ports", () => {
  const test = (
    title: string,
    body: (
      own: ReturnType<typeof withOwnPorts>,
      listen: (...guards: ReadonlyArray<Guard>) => void
    ) => Effect.Effect<void, unknown, MemoryFirewall>
  ) =>
    it.effect(title, () =>
      Effect.gen(function* () {
        let listening: ReadonlyArray<Guard> = [guard("tcp 127.0.0.1 7000")]
        const own = withOwnPorts(yield* Firewall, () => listening)
        yield* body(own, (...guards) => {
          listening = guards
        })
      }).pipe(Effect.provide(Firewall.layerMemory))
    )

  const web = redirect("tcp 0.0.0.0 8080", "10.0.0.2 80")
  const webText = "Redirect 0.0.0.0:8080/tcp -> 10.0.0.2:80"

  test("are part of every replacement of the rules, the first one too", ({ firewall, ownPorts }, listen) =>
    Effect.gen(function* () {
      const { flush, rules } = yield* MemoryFirewall
      yield* firewall.replace([web])
      assert.deepStrictEqual(rules(), ["Guard 127.0.0.1:7000/tcp", webText])
      listen(guard("tcp 127.0.0.1 7001"), guard("tcp ::1 7001"))
      yield* ownPorts.guard
      const both = ["Guard 127.0.0.1:7001/tcp", "Guard [::1]:7001/tcp", webText]
      assert.deepStrictEqual(rules(), both)
      flush()
      yield* firewall.replace([web])
      assert.deepStrictEqual(rules(), both)
      yield* ownPorts.release
      assert.deepStrictEqual(rules(), [webText])
      yield* firewall.replace([])
      assert.deepStrictEqual(rules(), [])
    }))

  test("are added with the table where that is gone, and fail where the kernel refuses it", ({
    firewall,
    ownPorts
  }, listen) =>
    Effect.gen(function* () {
      const { flush, refuse, rules } = yield* MemoryFirewall
      flush()
      listen(guard("tcp 127.0.0.1 7001"))
      yield* ownPorts.guard
      yield* firewall.replace([])
      assert.deepStrictEqual(rules(), ["Guard 127.0.0.1:7001/tcp"])
      listen(guard("tcp 127.0.0.1 7002"))
      refuse(new FirewallError({ reason: "Busy", operation: "changing", detail: "no buffers" }))
      assert.strictEqual((yield* Effect.flip(ownPorts.guard)).message, "changing failed: no buffers")
    }))
})
