import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { ENOBUFS, type Libc, libc } from "../../../adapters/linux/Libc.ts"
import { layer } from "../../../adapters/linux/nft/NftFirewall.ts"
import { Firewall, ruleText } from "../../../src/firewall/Firewall.ts"
import { guard, redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace, run } from "../../lab/ThreadNamespace.ts"

import { add, nft, older, remove, standing, firewallTest as test } from "./firewallTest.ts"

describeInNamespace("our table", () => {
  test(
    "has a table that no other process can change, flush or remove",
    Effect.gen(function* () {
      const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
      yield* add(rule)
      nft("flush ruleset")
      for (const damage of [
        "delete table inet portmapper",
        "flush table inet portmapper",
        "flush map inet portmapper any4",
        "delete element inet portmapper any4 { tcp . 80 }",
        "add rule inet portmapper published4 accept",
        "add table inet portmapper"
      ])
        assert.throws(() => nft(damage), /not permitted|not supported/i, damage)
      yield* Firewall.use(({ check }) => check)
      assert.deepStrictEqual(yield* standing, [ruleText(rule)])
      const { message } = yield* Effect.flip(Effect.provide(Firewall, layer()))
      assert.strictEqual(
        message,
        `process ${process.pid} keeps the table inet portmapper of this network namespace`
      )
    })
  )

  it.live("takes ownership of a table without an owner, and the other way round", () =>
    Effect.gen(function* () {
      const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
      nft("delete table inet portmapper")
      for (const load of [older, libc, older]) {
        yield* Effect.provide(
          Effect.gen(function* () {
            yield* Firewall.use(({ replace }) => replace([rule]))
            assert.deepStrictEqual(yield* standing, [ruleText(rule)])
          }),
          layer({ acceptMark: load === libc ? { mark: 1, mask: 1 } : undefined }, load)
        )
        assert.deepStrictEqual(
          yield* Effect.provide(
            standing,
            layer({ acceptMark: load === libc ? { mark: 1, mask: 1 } : undefined })
          ),
          [ruleText(rule)]
        )
      }
      nft("delete table inet portmapper")
    })
  )

  test(
    "changes nothing where the kernel refuses one rule of a change",
    Effect.gen(function* () {
      const before = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
      yield* add(before)
      // The IPv6 set is missing: the kernel refuses one message in the middle of the batch.
      run("nft -f -", "flush chain inet portmapper published6\ndelete map inet portmapper addr6\n")
      const error = yield* Effect.flip(
        add(
          redirect("tcp 0.0.0.0 81", "10.0.0.2 81"),
          redirect("tcp fd00::1 81", "fd00::2 81"),
          redirect("tcp 0.0.0.0 80", "10.0.0.3 80")
        )
      )
      assert.strictEqual(error.reason, "Gone")
      assert.include(
        nft("list map inet portmapper any4"),
        "tcp . 80 counter packets 0 bytes 0 : 10.0.0.2 . 80"
      )
      assert.notInclude(nft("list map inet portmapper any4"), "tcp . 81")
    }),
    older
  )

  it.live("leaves its table in place when it is closed, and takes it over with its counters", () =>
    Effect.gen(function* () {
      const rule = redirect("udp 0.0.0.0 80", "10.0.0.2 80", "10.0.0.0/8")
      yield* Effect.provide(
        Firewall.use(({ replace }) => replace([rule])),
        layer()
      )
      nft("delete element inet portmapper any4 { udp . 80 }")
      nft("add element inet portmapper any4 { udp . 80 counter packets 7 bytes 7 : 10.0.0.2 . 80 }")
      yield* Effect.provide(
        Effect.gen(function* () {
          const { read, replace, apply } = yield* Firewall
          assert.deepStrictEqual(yield* standing, [ruleText(rule)])
          yield* replace([rule, guard("tcp 127.0.0.1 80")])
          assert.deepStrictEqual((yield* read).counted, [{ rule, connections: 7, dropped: 0, overRate: 0 }])
          yield* apply({ add: [], remove: [rule] })
          assert.deepStrictEqual(yield* standing, ["Guard 127.0.0.1:80/tcp"])
        }),
        layer()
      )
    })
  )

  it.live("keeps a table of another definition until it gets its rules, then replaces it", () =>
    Effect.gen(function* () {
      const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
      for (const older of [
        Effect.provide(
          Firewall.use(({ replace }) => replace([rule])),
          layer({ acceptMark: { mark: 0x4000, mask: 0x4000 } })
        ),
        Effect.sync(() => {
          nft("delete table inet portmapper")
          run("nft -f -", "table inet portmapper { set any4 { type ipv4_addr; elements = { 10.0.0.2 }; }; }")
        })
      ]) {
        yield* older
        yield* Effect.provide(
          Effect.gen(function* () {
            const { check, replace } = yield* Firewall
            assert.include(nft("list table inet portmapper"), "10.0.0.2")
            assert.notInclude(nft("list table inet portmapper"), "0x00005000")
            yield* replace([rule])
            assert.include(nft("list table inet portmapper"), "0x00005000")
            assert.deepStrictEqual(yield* standing, [ruleText(rule)])
            yield* check
          }),
          layer({ acceptMark: { mark: 0x5000, mask: 0xf000 } })
        )
      }
    })
  )

  it.live("keeps tables of other names apart", () =>
    Effect.gen(function* () {
      const one = yield* Layer.build(layer({ table: "first" }))
      const other = yield* Layer.build(layer({ table: "second" }))
      yield* Context.get(one, Firewall).replace([guard("tcp 127.0.0.1 80")])
      yield* Context.get(other, Firewall).replace([guard("tcp 127.0.0.1 81")])
      yield* Context.get(one, Firewall).remove
      const { rules } = yield* Context.get(other, Firewall).read
      assert.deepStrictEqual(rules.map(ruleText), ["Guard 127.0.0.1:81/tcp"])
      yield* Context.get(other, Firewall).remove
    }).pipe(Effect.scoped)
  )

  let trouble: "none" | "send" | "answer" = "none"
  const troubled = (): Libc => ({
    ...libc(),
    send: (...all) => (trouble === "send" ? -ENOBUFS : libc().send(...all)),
    recvfrom: (...all) => {
      if (trouble !== "answer") return libc().recvfrom(...all)
      trouble = "none"
      return -ENOBUFS
    }
  })
  for (const kind of ["send", "answer"] as const)
    test(
      `reports that the kernel is busy (${kind}), and finds out afterwards whether it made the change`,
      Effect.gen(function* () {
        const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
        trouble = kind
        const error = yield* Effect.flip(add(rule))
        trouble = "none"
        assert.deepStrictEqual(
          [error.reason, error.message],
          [
            "Busy",
            "changing nftables table inet portmapper failed: no buffer space available: the kernel could not take the change now"
          ]
        )
        yield* remove(rule)
        assert.deepStrictEqual(yield* standing, [])
        yield* add(rule)
        assert.deepStrictEqual(yield* standing, [ruleText(rule)])
      }),
      troubled
    )

  test(
    "removes its table and nothing else",
    Effect.gen(function* () {
      nft("add table inet others")
      yield* Firewall.use(({ remove: removeTable }) => removeTable)
      assert.notInclude(nft("list tables"), "table inet portmapper\n")
      assert.include(nft("list tables"), "table inet others")
      nft("delete table inet others")
    })
  )
})
