/** What every implementation of `Firewall` must do. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { IpNetwork } from "effect/net"
import {
  Firewall,
  type Guard,
  type Limit,
  type Redirect,
  type Rule,
  ruleText
} from "../../src/firewall/Firewall.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import type { Protocol } from "../../src/protocol/Protocol.ts"
import { type Balance, parseSlots, type Size } from "../../src/protocol/Slots.ts"

/** `redirect("tcp 0.0.0.0 8080", "10.0.0.2 80", "10.0.0.0/8")`; without networks, the rule admits every source. */
export const redirect = (frontend: string, backend: string, ...allow: ReadonlyArray<string>): Redirect => {
  const [address = "", port] = backend.split(" ")
  return {
    _tag: "Redirect",
    ...frontendOf(frontend),
    backend: { address: addressUnsafe(address), port: Number(port) },
    allow: allow.length === 0 ? undefined : allow.map(IpNetwork.fromStringUnsafe)
  }
}

/** The same for one backend of a service, with its slots as `0-31 of 64`. */
export const member = (rule: Redirect, slots: string, balance: Balance = "random"): Redirect => {
  const [text = "", size] = slots.split(" of ")
  return { ...rule, share: { balance, size: Number(size) as Size, slots: parseSlots(text) ?? [] } }
}

/** The same with a rate in new connections per second. */
export const atRate = (rate: number, rule: Redirect): Redirect => ({ ...rule, rate })

export const limit = (frontend: string, ...allow: ReadonlyArray<string>): Limit => ({
  _tag: "Limit",
  ...frontendOf(frontend),
  allow: allow.map(IpNetwork.fromStringUnsafe)
})

export const guard = (frontend: string): Guard => ({ _tag: "Guard", ...frontendOf(frontend) })

const frontendOf = (text: string) => {
  const [protocol, host = "", port] = text.split(" ")
  return { protocol: protocol as Protocol, host: addressUnsafe(host), port: Number(port) }
}

/** A rule of each kind, with its networks in rising order. */
const everyShape: ReadonlyArray<Rule> = [
  redirect("tcp 0.0.0.0 80", "10.0.0.2 8080"),
  redirect("tcp 10.1.0.1 80", "10.0.0.3 8081"),
  redirect("udp 0.0.0.0 80", "10.0.0.2 8080", "10.0.0.0/8"),
  redirect("udp 10.1.0.1 81", "10.0.0.2 65535", "0.0.0.0/0"),
  redirect("sctp 0.0.0.0 65535", "10.0.0.2 1"),
  redirect("tcp :: 80", "fd00::2 8080", "2001:db8::/32", "fd01::7/128"),
  redirect("udp fd00::1 53", "fd00::2 5353"),
  redirect("tcp fd00::1 80", "fd00::3 80", "::/0"),
  limit("tcp 0.0.0.0 90", "10.0.0.0/8", "192.168.1.1/32"),
  limit("udp 10.1.0.1 90"),
  limit("tcp :: 90", "fd00::/8"),
  limit("tcp fd00::1 91", "fe80::/10"),
  guard("tcp 127.0.0.1 80"),
  guard("udp 127.0.0.2 53"),
  guard("tcp ::1 80"),
  member(redirect("tcp 0.0.0.0 70", "10.0.0.2 80"), "0-40,63 of 64"),
  member(redirect("tcp 0.0.0.0 70", "10.0.0.3 80"), "41-62 of 64"),
  member(redirect("udp 10.1.0.1 70", "10.0.0.2 80", "10.0.0.0/8"), "0-63 of 64", "source"),
  member(redirect("tcp :: 70", "fd00::2 8080", "fd00::/8"), "0-1022 of 1024"),
  member(redirect("tcp :: 70", "fd00::3 8080", "fd00::/8"), "1023 of 1024"),
  member(redirect("udp fd00::1 70", "fd00::2 8080"), "5-9 of 1024", "source"),
  atRate(1, redirect("tcp 0.0.0.0 60", "10.0.0.2 80")),
  atRate(1_000_000, redirect("udp 10.1.0.1 60", "10.0.0.2 80", "10.0.0.0/8")),
  atRate(20, redirect("tcp :: 60", "fd00::2 80")),
  atRate(7, member(redirect("tcp fd00::1 60", "fd00::2 80"), "0-31 of 64")),
  atRate(7, member(redirect("tcp fd00::1 60", "fd00::3 80"), "32-63 of 64"))
]

/** `flush` removes the table as another process would; `undefined` where no process can. */
export const firewallConformance = <R>(
  name: string,
  layer: Layer.Layer<Firewall | R, { readonly message: string }>,
  flush: Effect.Effect<void, never, R> | undefined
): void => {
  describe(name, () => {
    const test = <E>(title: string, body: Effect.Effect<void, E, Firewall | R>) =>
      it.live(title, () => {
        const fresh = Effect.andThen(
          Firewall.use((firewall) => firewall.replace([])),
          body
        )
        return Effect.provide(fresh, layer)
      })

    const texts = (rules: ReadonlyArray<Rule>) => rules.map(ruleText).sort()
    const standing = Effect.flatMap(Firewall, ({ read }) => Effect.map(read, ({ rules }) => texts(rules)))
    const add = (...rules: ReadonlyArray<Rule>) =>
      Firewall.use(({ apply }) => apply({ add: rules, remove: [] }))
    const remove = (...rules: ReadonlyArray<Rule>) =>
      Firewall.use(({ apply }) => apply({ add: [], remove: rules }))

    test(
      "reads back rules of every kind as they were added",
      Effect.gen(function* () {
        yield* add(...everyShape)
        assert.deepStrictEqual(yield* standing, texts(everyShape))
      })
    )

    test(
      "removes rules of every kind, and leaves nothing",
      Effect.gen(function* () {
        yield* add(...everyShape)
        yield* remove(...everyShape)
        assert.deepStrictEqual(yield* standing, [])
      })
    )

    test(
      "replaces the rule of a frontend, whatever its kind",
      Effect.gen(function* () {
        const successors = [
          redirect("tcp 0.0.0.0 80", "10.0.0.2 80"),
          atRate(5, redirect("tcp 0.0.0.0 80", "10.0.0.2 80")),
          atRate(6, redirect("tcp 0.0.0.0 80", "10.0.0.2 80")),
          atRate(5, redirect("tcp 0.0.0.0 80", "10.0.0.2 80", "10.0.0.0/8")),
          redirect("tcp 0.0.0.0 80", "10.0.0.3 80", "10.0.0.0/8", "192.168.0.0/16"),
          redirect("tcp 0.0.0.0 80", "10.0.0.3 80", "192.168.0.0/16", "193.0.0.0/8"),
          limit("tcp 0.0.0.0 80", "192.168.0.0/24"),
          redirect("tcp 0.0.0.0 80", "10.0.0.3 80", "192.168.0.0/16"),
          redirect("tcp 0.0.0.0 80", "10.0.0.4 81"),
          limit("tcp 0.0.0.0 80"),
          redirect("tcp 0.0.0.0 80", "10.0.0.4 81")
        ]
        for (const rule of successors) {
          yield* add(rule)
          assert.deepStrictEqual(yield* standing, texts([rule]))
        }
      })
    )

    test(
      "adds a rule that is there already",
      Effect.gen(function* () {
        yield* add(...everyShape)
        yield* add(...everyShape)
        assert.deepStrictEqual(yield* standing, texts(everyShape))
      })
    )

    test(
      "removes a rule that is not there, alone and among others",
      Effect.gen(function* () {
        yield* remove(...everyShape)
        yield* add(redirect("tcp 0.0.0.0 80", "10.0.0.2 80"))
        yield* remove(...everyShape)
        assert.deepStrictEqual(yield* standing, [])
      })
    )

    test(
      "finds the rule to remove by its frontend",
      Effect.gen(function* () {
        yield* add(redirect("tcp 0.0.0.0 80", "10.0.0.2 80", "10.0.0.0/8"), guard("tcp 127.0.0.1 80"))
        yield* remove(redirect("tcp 0.0.0.0 80", "10.9.9.9 99"))
        assert.deepStrictEqual(yield* standing, ["Guard 127.0.0.1:80/tcp"])
      })
    )

    test(
      "replaces a rule that is in both lists of a change",
      Effect.gen(function* () {
        const before = redirect("tcp 0.0.0.0 80", "10.0.0.2 80", "10.0.0.0/8")
        const after = redirect("tcp 0.0.0.0 80", "10.0.0.3 80")
        yield* add(before)
        yield* (yield* Firewall).apply({ add: [after], remove: [before] })
        assert.deepStrictEqual(yield* standing, texts([after]))
      })
    )

    test(
      "keeps frontends apart by protocol, address, family and port",
      Effect.gen(function* () {
        const apart = [
          redirect("tcp 0.0.0.0 80", "10.0.0.2 80", "10.0.0.0/8"),
          redirect("udp 0.0.0.0 80", "10.0.0.3 80"),
          redirect("tcp 10.1.0.1 80", "10.0.0.4 80"),
          redirect("tcp 10.1.0.2 80", "10.0.0.5 80", "10.2.0.0/16"),
          redirect("tcp :: 80", "fd00::2 80", "fd00::/8"),
          redirect("tcp 0.0.0.0 81", "10.0.0.6 80", "10.3.0.0/16")
        ]
        yield* add(...apart)
        for (let left = apart; left.length > 0; left = left.slice(1)) {
          assert.deepStrictEqual(yield* standing, texts(left))
          yield* remove(...left.slice(0, 1))
        }
      })
    )

    test(
      "keeps the backends of a service apart, and their allow-list and rate until the last one goes",
      Effect.gen(function* () {
        const to = (backend: string, slots: string) =>
          atRate(9, member(redirect("tcp 0.0.0.0 80", `${backend} 80`, "10.0.0.0/8"), slots))
        yield* add(to("10.0.0.2", "0-63 of 64"))
        const pair = [to("10.0.0.2", "0-31 of 64"), to("10.0.0.3", "32-63 of 64")]
        yield* add(...pair)
        assert.deepStrictEqual(yield* standing, texts(pair))
        const gap = to("10.0.0.2", "0-31 of 64")
        yield* remove(to("10.0.0.3", "32-63 of 64"))
        assert.deepStrictEqual(yield* standing, texts([gap]))
        // The number of slots may change with a member, and so may the balance of the only one.
        const wide = [to("10.0.0.2", "0-511 of 1024"), to("10.0.0.4", "512-1023 of 1024")]
        yield* add(...wide)
        assert.deepStrictEqual(yield* standing, texts(wide))
        const alone = { ...to("10.0.0.4", "0-1023 of 1024"), allow: undefined, rate: 8 }
        yield* (yield* Firewall).apply({ add: [alone], remove: wide })
        assert.deepStrictEqual(yield* standing, texts([alone]))
        yield* remove(alone)
        assert.deepStrictEqual(yield* standing, [])
      })
    )

    test(
      "redirects nothing by an idle rule, nor by a service's without slots, and goes on when they are not idle",
      Effect.gen(function* () {
        const { replace } = yield* Firewall
        const plain = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
        const part = (backend: string, slots: string) =>
          member(redirect("udp :: 80", `fd00::${backend} 80`), `${slots} of 64`)
        const led = [plain, part("2", "0-31"), part("3", "32-63")]
        const idle = [{ ...plain, idle: true as const }, part("2", ""), part("3", "0-63")]
        yield* add(...led)
        yield* add(...idle)
        assert.deepStrictEqual(yield* standing, texts([part("3", "0-63")]))
        yield* add(...led)
        assert.deepStrictEqual(yield* standing, texts(led))
        yield* replace(idle)
        assert.deepStrictEqual(yield* standing, texts([part("3", "0-63")]))
        yield* add(part("3", ""))
        assert.deepStrictEqual(yield* standing, [])
        yield* remove(...idle)
        assert.deepStrictEqual(yield* standing, [])
        yield* add(...led)
        assert.deepStrictEqual(yield* standing, texts(led))
      })
    )

    test(
      "replaces all rules",
      Effect.gen(function* () {
        const { replace } = yield* Firewall
        yield* add(...everyShape)
        const others = [redirect("tcp 0.0.0.0 80", "10.0.0.9 80"), limit("udp 10.1.0.1 90", "10.0.0.0/8")]
        yield* replace(others)
        assert.deepStrictEqual(yield* standing, texts(others))
        yield* replace(everyShape)
        assert.deepStrictEqual(yield* standing, texts(everyShape))
        yield* replace(everyShape)
        assert.deepStrictEqual(yield* standing, texts(everyShape))
      })
    )

    test(
      "counts nothing for rules without traffic",
      Effect.gen(function* () {
        yield* add(
          redirect("tcp 0.0.0.0 80", "10.0.0.2 80"),
          limit("tcp 0.0.0.0 81"),
          guard("tcp 127.0.0.1 80")
        )
        const { counted } = yield* (yield* Firewall).read
        assert.deepStrictEqual(
          counted.map(({ rule, connections, dropped }) => [ruleText(rule), connections, dropped]).sort(),
          [
            ["Limit 0.0.0.0:81/tcp from ", 0, 0],
            ["Redirect 0.0.0.0:80/tcp -> 10.0.0.2:80", 0, 0]
          ]
        )
      })
    )

    if (flush !== undefined)
      test(
        "notices that the table is gone, and puts it back",
        Effect.gen(function* () {
          const { check, read, replace } = yield* Firewall
          const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
          yield* add(rule)
          yield* check
          yield* flush
          const errors = [yield* Effect.flip(check), yield* Effect.flip(read), yield* Effect.flip(add(rule))]
          assert.deepStrictEqual(
            errors.map(({ reason }) => reason),
            ["Gone", "Gone", "Gone"]
          )
          yield* remove(rule)
          yield* replace([rule])
          yield* check
          assert.deepStrictEqual(yield* standing, texts([rule]))
        })
      )

    test(
      "refuses flows in addition to the rules, repeatedly, and fails without the table",
      Effect.gen(function* () {
        const { refuse, replace, check, remove: removeTable } = yield* Firewall
        const rule = redirect("tcp 0.0.0.0 80", "10.0.0.2 80")
        const end = (address: string, port: number) => ({ address: addressUnsafe(address), port })
        const flows = [
          { protocol: "tcp", backend: end("10.0.0.2", 80), client: end("192.0.2.2", 5000) },
          { protocol: "udp", backend: end("fd00::2", 65535), client: end("2001:db8::2", 1) }
        ] as const
        yield* refuse(flows)
        yield* replace([rule])
        yield* refuse(flows)
        yield* refuse([])
        yield* check
        assert.deepStrictEqual(yield* standing, texts([rule]))
        yield* flush ?? removeTable
        assert.strictEqual((yield* Effect.flip(refuse(flows))).reason, "Gone")
        yield* replace([rule])
        yield* refuse(flows)
      })
    )

    test(
      "removes the table, and removes it again",
      Effect.gen(function* () {
        const firewall = yield* Firewall
        yield* add(...everyShape)
        yield* firewall.remove
        yield* firewall.remove
        assert.strictEqual((yield* Effect.flip(firewall.check)).reason, "Gone")
        yield* firewall.replace(everyShape)
        assert.deepStrictEqual(yield* standing, texts(everyShape))
      })
    )
  })
}
