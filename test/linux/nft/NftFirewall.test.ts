import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { layer } from "../../../adapters/linux/nft/NftFirewall.ts"
import { Firewall, type FirewallError, type Rule, ruleText } from "../../../src/firewall/Firewall.ts"
import { atRate, firewallConformance, guard, limit, redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace } from "../../lab/ThreadNamespace.ts"

import { add, nft, older, remove, standing, firewallTest as test } from "./firewallTest.ts"

describeInNamespace("NftFirewall", () => {
  firewallConformance("Firewall on nftables", layer(), undefined)
  firewallConformance(
    "Firewall on nftables before Linux 6.9",
    layer({}, older),
    Effect.sync(() => void nft("delete table inet portmapper"))
  )

  test(
    "writes what nft reads",
    Effect.gen(function* () {
      yield* add(
        redirect(
          "tcp 0.0.0.0 8080",
          "172.17.0.2 80",
          "10.0.0.0/8",
          "192.168.1.1/32",
          "10.1.0.0/16",
          "fd00::/8"
        ),
        redirect("udp fd00::1 53", "fd00::2 5353", "fd00::/8"),
        limit("tcp 10.1.0.1 80", "0.0.0.0/0"),
        guard("tcp 127.0.0.1 80")
      )
      const lines = nft("list table inet portmapper")
        .replace(/\s+/g, " ")
        .matchAll(/(?:map|set) (\w+) \{[^{}]*elements = \{ ([^}]*) \}/g)
      assert.deepStrictEqual(Object.fromEntries([...lines].map(([, name, elements]) => [name, elements])), {
        any4: "tcp . 8080 counter packets 0 bytes 0 : 172.17.0.2 . 80",
        addr6: "fd00::1 . udp . 53 counter packets 0 bytes 0 : fd00::2 . 5353",
        limited_any4: "tcp . 8080",
        limited_addr4: "10.1.0.1 . tcp . 80",
        limited_addr6: "fd00::1 . udp . 53",
        allowed_any4: "tcp . 8080 . 10.0.0.0/8, tcp . 8080 . 192.168.1.1",
        allowed_addr4: "10.1.0.1 . tcp . 80 . 0.0.0.0/0",
        allowed_addr6: "fd00::1 . udp . 53 . fd00::/8",
        denied_any4: "tcp . 8080 counter packets 0 bytes 0",
        denied_addr4: "10.1.0.1 . tcp . 80 counter packets 0 bytes 0",
        denied_addr6: "fd00::1 . udp . 53 counter packets 0 bytes 0",
        hairpin_any4: "tcp . 8080 . 172.17.0.2",
        hairpin_addr6: "fd00::1 . udp . 53 . fd00::2",
        loopback4: "127.0.0.1 . tcp . 80"
      })
    })
  )

  test(
    "tolerates elements that other processes removed or added",
    Effect.gen(function* () {
      const one = redirect("tcp 0.0.0.0 80", "10.0.0.2 80", "10.0.0.0/8")
      const other = redirect("tcp 0.0.0.0 81", "10.0.0.2 81")
      yield* add(one, other)
      nft("delete element inet portmapper any4 { tcp . 80 }")
      nft("delete element inet portmapper any4 { tcp . 81 }")
      nft("add element inet portmapper any4 { tcp . 82 : 10.9.9.9 . 82 }")
      nft("add element inet portmapper hairpin_any4 { tcp . 83 . 10.9.9.9 }")
      yield* remove(one)
      yield* add(redirect("tcp 0.0.0.0 82", "10.0.0.2 82"))
      assert.deepStrictEqual(yield* standing, ["Redirect 0.0.0.0:82/tcp -> 10.0.0.2:82"])
      yield* remove(other)
      yield* add(other)
      assert.deepStrictEqual(yield* standing, [
        "Redirect 0.0.0.0:81/tcp -> 10.0.0.2:81",
        "Redirect 0.0.0.0:82/tcp -> 10.0.0.2:82"
      ])
      assert.match(
        nft("list set inet portmapper hairpin_any4"),
        /elements = \{ tcp \. 8[12] \. 10\.0\.0\.2,\s+tcp \. 8[12] \. 10\.0\.0\.2 \}/
      )
    }),
    older
  )

  test(
    "refuses to redirect to another family",
    Effect.gen(function* () {
      const error = yield* Effect.flip(add(redirect("tcp :: 80", "10.0.0.2 80")))
      assert.strictEqual(
        error.message,
        "Redirect [::]:80/tcp -> 10.0.0.2:80 failed: IPv6 cannot be redirected to IPv4"
      )
    })
  )

  it.live("puts back the rate that another process changed, and keeps one that is right", () =>
    Effect.gen(function* () {
      const rule = atRate(20, redirect("tcp 0.0.0.0 80", "10.0.0.2 80"))
      const replaced = (there: string) =>
        Effect.provide(
          Effect.gen(function* () {
            const { read, replace } = yield* Firewall
            assert.deepStrictEqual(yield* standing, [there])
            yield* replace([rule])
            assert.deepStrictEqual((yield* read).rules, [rule])
          }),
          layer()
        )
      yield* Effect.provide(
        Firewall.use(({ replace }) => replace([rule])),
        layer()
      )
      const text = "Redirect 0.0.0.0:80/tcp -> 10.0.0.2:80"
      yield* replaced(`${text} at most 20/s`)
      for (const [limit, there] of [
        ["limit rate over 9/second burst 9 packets", `${text} at most 9/s`],
        // Not one of ours: a burst, a unit, a direction.
        ["limit rate over 20/second burst 21 packets", `${text} at most 0/s`],
        ["limit rate over 20/minute burst 20 packets", `${text} at most 0/s`],
        ["limit rate 20/second burst 20 packets", `${text} at most 0/s`]
      ] as const) {
        nft("delete element inet portmapper rate_any4 { tcp . 80 }")
        nft(`add element inet portmapper rate_any4 { tcp . 80 ${limit} }`)
        yield* replaced(there)
      }
      nft("delete element inet portmapper rate_any4 { tcp . 80 }")
      yield* replaced(text)
    })
  )

  it.live("loads every accept mark, the widest too", () =>
    Effect.gen(function* () {
      nft("delete table inet portmapper")
      for (const acceptMark of [
        { mark: 1, mask: 0xffffffff },
        { mark: 0xffffffff, mask: 0xffffffff },
        { mark: 0x2000, mask: 0x3000 },
        { mark: 0, mask: 0 }
      ])
        yield* Effect.provide(
          Firewall.use(({ replace, check }) => Effect.andThen(replace([]), check)),
          layer({ acceptMark })
        )
    })
  )

  test(
    "serializes concurrent changes",
    Effect.gen(function* () {
      const firewall = yield* Firewall
      const rules = Array.from({ length: 50 }, (_, index) =>
        redirect(`tcp 0.0.0.0 ${1000 + index}`, "10.0.0.2 80")
      )
      nft("delete table inet portmapper")
      yield* Effect.all(
        [
          firewall.replace([]),
          ...rules.map((rule) => add(rule)),
          ...rules.slice(1).map((rule) => remove(rule))
        ],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(yield* standing, ["Redirect 0.0.0.0:1000/tcp -> 10.0.0.2:80"])
    }),
    older
  )

  test(
    "replaces 10,000 rules in one transaction, with the table there and without",
    Effect.gen(function* () {
      const { read, remove: removeTable, replace } = yield* Firewall
      const rules = (backend: string) =>
        Array.from({ length: 10_000 }, (_, index) => redirect(`tcp 0.0.0.0 ${1000 + index}`, `${backend} 80`))
      const counted = Effect.fnUntraced(function* (change: Effect.Effect<void, FirewallError>) {
        yield* change
        assert.strictEqual((yield* read).rules.length, 10_000)
      })
      yield* counted(replace(rules("10.0.0.2")))
      yield* counted(replace(rules("10.0.0.3")))
      yield* removeTable
      yield* counted(replace(rules("10.0.0.4")))
    })
  )

  it.live("agrees with the in-memory firewall over random changes", () =>
    Effect.gen(function* () {
      const memory = Context.get(yield* Layer.build(Firewall.layerMemory), Firewall)
      const linux = Context.get(yield* Layer.build(layer()), Firewall)
      yield* linux.replace([])
      const random = randomNumbers(7)
      const pick = <A>(...values: readonly [A, ...ReadonlyArray<A>]): A =>
        values[random(values.length)] ?? values[0]
      const any = (): Rule => {
        const four = random(2) === 0
        const frontend = `${pick("tcp", "udp", "sctp")} ${four ? pick("0.0.0.0", "10.1.0.1") : pick("::", "fd00:1::1")} ${pick(80, 81)}`
        const networks = four
          ? ["10.0.0.0/8", "11.0.0.0/8", "192.0.2.1/32"]
          : ["2001:db8::/32", "fd00::/8", "fd80::1/128"]
        const allow = networks.filter((network) => random(2) === 0 && !(network === "fd80::1/128"))
        switch (random(3)) {
          case 0:
            return guard(`${pick("tcp", "udp")} ${four ? "127.0.0.1" : "::1"} ${pick(80, 81)}`)
          case 1:
            return limit(frontend, ...allow)
          default:
            return redirect(
              frontend,
              `${four ? pick("10.0.0.2", "10.0.0.3") : "fd00::2"} ${pick(80, 8080)}`,
              ...allow
            )
        }
      }
      for (let round = 0; round < 400; round++) {
        const change = {
          add: Array.from({ length: random(4) }, any),
          remove: Array.from({ length: random(4) }, any)
        }
        const replace = random(20) === 0
        for (const firewall of [memory, linux])
          yield* replace ? firewall.replace(change.add) : firewall.apply(change)
        const texts = [yield* memory.read, yield* linux.read].map(({ rules }) => rules.map(ruleText).sort())
        assert.deepStrictEqual(texts[1], texts[0], `round ${round}`)
      }
    }).pipe(Effect.scoped)
  )
})

/** Numbers below a limit, the same for the same seed (Numerical Recipes' linear congruence). */
const randomNumbers = (seed: number) => {
  let state = seed
  return (limit: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
}
