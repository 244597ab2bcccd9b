import { closeSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { libc } from "../../../adapters/linux/Libc.ts"
import { makeNamespaceLock } from "../../../adapters/linux/nft/NamespaceLock.ts"
import { layer } from "../../../adapters/linux/nft/NftFirewall.ts"
import { Firewall, ruleText } from "../../../src/firewall/Firewall.ts"
import { guard, redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace } from "../../lab/ThreadNamespace.ts"
import { olderKernel } from "../../support/olderKernel.ts"

import { add, nft, older, standing } from "./firewallTest.ts"

describeInNamespace("the lock of a network namespace", () => {
  for (const kernel of ["today", "before 6.9"] as const)
    it.live(`is held as long as a descriptor of it is open (${kernel})`, () =>
      Effect.gen(function* () {
        const load = kernel === "today" ? libc : older
        const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
        const first = yield* Scope.make()
        const lock = yield* Scope.provide(makeNamespaceLock("portmapper", load), first)
        yield* Effect.provide(
          Firewall.use(({ replace }) => replace([rule])),
          layer({ lock }, load)
        )
        const handed = libc().duplicate(lock.descriptor() ?? -1)
        yield* Scope.close(first, Exit.void)
        const busy = yield* Effect.flip(Effect.provide(Firewall, layer({}, load)))
        assert.strictEqual(busy._tag, "NamespaceBusy")

        const second = yield* Scope.make()
        const inherited = yield* Scope.provide(makeNamespaceLock("portmapper", load, handed), second)
        yield* Effect.provide(
          Effect.gen(function* () {
            assert.deepStrictEqual(yield* standing, [ruleText(rule)])
            yield* add(guard("tcp 127.0.0.1 80"))
          }),
          layer({ lock: inherited }, load)
        )
        yield* Scope.close(second, Exit.void)
        assert.throws(() => closeSync(handed), "EBADF")
        yield* Effect.provide(Firewall, layer({}, load))
      })
    )

  it.live("is left out where the kernel has no owned tables", () =>
    Effect.gen(function* () {
      const before512 = () => olderKernel(libc(), "before 5.12")
      const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
      yield* Effect.provide(
        Effect.gen(function* () {
          yield* Firewall.use(({ replace }) => replace([rule]))
          assert.strictEqual(nft("list tables"), "table inet portmapper\n")
          yield* Effect.provide(Firewall, layer({}, before512))
        }),
        layer({}, before512)
      )
    })
  )

  it.live("is refused by naming the missing privilege", () =>
    Effect.gen(function* () {
      process.seteuid?.(65534)
      const error = yield* Effect.flip(Effect.provide(Firewall, layer())).pipe(
        Effect.ensuring(Effect.sync(() => process.seteuid?.(0)))
      )
      assert.deepStrictEqual(
        [error._tag === "FirewallError" ? error.reason : error._tag, error.message],
        [
          "Denied",
          "locking nftables table inet portmapper failed: operation not permitted: this requires root or the capability CAP_NET_ADMIN"
        ]
      )
    })
  )
})
