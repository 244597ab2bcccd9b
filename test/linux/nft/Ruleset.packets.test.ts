/** The table's effect on packets: from outside, from a neighbour, from the container itself and from the host. */
import { existsSync, writeFileSync } from "node:fs"
import { assert, layer as withLayer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { layer as nftFirewall } from "../../../adapters/linux/nft/NftFirewall.ts"
import { Firewall, type Rule } from "../../../src/firewall/Firewall.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"
import { slotsText } from "../../../src/protocol/Slots.ts"
import { slotOfSource } from "../../../src/relay/SourceHash.ts"
import { atRate, guard, limit, member, redirect } from "../../firewall/firewallConformance.ts"
import { describeLab } from "../../lab/describeLab.ts"
import type { Namespace } from "../../lab/Namespace.ts"
import { silenceMillis } from "../../lab/patience.ts"
import { ip, LabHost, run } from "../../lab/ThreadNamespace.ts"

const acceptMark = { mark: 0x5000, mask: 0xf000 }
const bridgedPacketsPassTables = "/proc/sys/net/bridge/bridge-nf-call-iptables"
const silence = { timeoutMillis: silenceMillis }

describeLab("Ruleset, with packets", ["sysctl"], () => {
  withLayer(Layer.provideMerge(nftFirewall({ acceptMark }), LabHost.layer), {
    timeout: 30_000,
    excludeTestServices: true
  })((it) => {
    const serve = (at: Namespace, protocol: "tcp" | "udp", host: string, port: number, who: string) =>
      at.agent.echo({ protocol, host, port, who })

    /** `SERVER to CLIENT'S ADDRESS`, or how it ended without an answer. */
    const ask = (
      from: Namespace,
      target: string,
      more: {
        readonly sourceAddress?: string
        readonly timeoutMillis?: number
        readonly rounds?: number
      } = {}
    ) =>
      Effect.gen(function* () {
        const [protocol, host = "", port] = target.split(" ")
        const to = { host, port: Number(port), ...more }
        const { answer, outcome } =
          protocol === "tcp"
            ? yield* from.agent.tcp(to)
            : yield* Effect.map(from.agent.udp(to), ({ outcome, replies }) => ({
                outcome,
                answer: replies[0]
              }))
        return answer === undefined ? outcome : `${answer.who} to ${answer.seen?.address}`
      })

    /** Exactly these rules, with their counters at zero. */
    const enforce = (...rules: ReadonlyArray<Rule>) =>
      Firewall.use(({ replace }) => Effect.andThen(replace([]), replace(rules)))

    /** The counters of a chain, in order. */
    const counters = (chain: string) =>
      [...run(`nft list chain ${chain}`).matchAll(/packets (\d+)/g)].map(([, packets]) => Number(packets))

    it.effect("starts the containers' servers", () =>
      Effect.gen(function* () {
        const { c1, c2 } = yield* LabHost
        for (const protocol of ["tcp", "udp"] as const)
          for (const address of ["0.0.0.0", "::"]) {
            yield* serve(c1, protocol, address, 80, "web")
            yield* serve(c2, protocol, address, 80, "other")
          }
      })
    )

    for (const protocol of ["tcp", "udp"] as const) {
      const four = {
        any: "0.0.0.0",
        own: "10.99.0.1",
        client: "10.99.0.2",
        web: "172.31.0.2",
        other: "172.31.0.3",
        bridge: "172.31.0.1"
      }
      const six = {
        any: "::",
        own: "fd99::1",
        client: "fd99::2",
        web: "fd66::2",
        other: "fd66::3",
        bridge: "fd66::1"
      }
      for (const [family, at] of [
        [4, four],
        [6, six]
      ] as const) {
        it.effect(`redirects ${protocol} over IPv${family} by any address of the host, from everywhere`, () =>
          Effect.gen(function* () {
            const { client, host, c1: web, c2: other } = yield* LabHost
            yield* enforce(redirect(`${protocol} ${at.any} 8080`, `${at.web} 80`))
            yield* serve(host, protocol, at.own, 8080, "relay")
            const asked = {
              outside: yield* ask(client, `${protocol} ${at.own} 8080`),
              "outside, another address": yield* ask(client, `${protocol} ${at.bridge} 8080`),
              neighbour: yield* ask(other, `${protocol} ${at.own} 8080`),
              "neighbour, by its router": yield* ask(other, `${protocol} ${at.bridge} 8080`),
              itself: yield* ask(web, `${protocol} ${at.own} 8080`),
              host: yield* ask(host, `${protocol} ${at.own} 8080`)
            }
            assert.deepStrictEqual(asked, {
              outside: `web to ${at.client}`,
              "outside, another address": `web to ${at.client}`,
              neighbour: `web to ${at.bridge}`,
              "neighbour, by its router": `web to ${at.bridge}`,
              itself: `relay to ${at.web}`,
              host: `web to ${at.own}`
            })
            const { counted } = yield* (yield* Firewall).read
            assert.deepStrictEqual(
              counted.map(({ connections, dropped }) => [connections, dropped]),
              [[5, 0]]
            )
          })
        )

        it.effect(`prefers the rule of one address over that of all, ${protocol} over IPv${family}`, () =>
          Effect.gen(function* () {
            const { client, host, c1: web, c2: other } = yield* LabHost
            yield* enforce(
              redirect(`${protocol} ${at.any} 8080`, `${at.web} 80`),
              redirect(`${protocol} ${at.own} 8080`, `${at.other} 80`)
            )
            assert.deepStrictEqual(
              [
                yield* ask(client, `${protocol} ${at.own} 8080`),
                yield* ask(host, `${protocol} ${at.own} 8080`),
                yield* ask(web, `${protocol} ${at.own} 8080`),
                yield* ask(other, `${protocol} ${at.own} 8080`),
                yield* ask(client, `${protocol} ${at.bridge} 8080`)
              ],
              [
                `other to ${at.client}`,
                `other to ${at.own}`,
                `other to ${at.bridge}`,
                `relay to ${at.other}`,
                `web to ${at.client}`
              ]
            )
          })
        )

        it.effect(`spreads a service's connections over its slots, ${protocol} over IPv${family}`, () =>
          Effect.gen(function* () {
            const { client, host } = yield* LabHost
            for (const address of [at.any, at.own]) {
              const to = (backend: string, slots: string, balance: "random" | "source") =>
                member(redirect(`${protocol} ${address} 8080`, `${backend} 80`), slots, balance)
              const answers = Effect.fnUntraced(function* (times: number) {
                const all: Array<string> = []
                for (let time = 0; time < times; time++)
                  all.push(yield* ask(client, `${protocol} ${at.own} 8080`))
                return new Set(all)
              })
              yield* enforce(to(at.web, "0-31 of 64", "random"), to(at.other, "32-63 of 64", "random"))
              assert.deepStrictEqual(
                yield* answers(20),
                new Set([`web to ${at.client}`, `other to ${at.client}`])
              )
              assert.match(yield* ask(host, `${protocol} ${at.own} 8080`), /^(web|other) to /)
              const { counted } = yield* (yield* Firewall).read
              const connections = counted.reduce((sum, one) => sum + one.connections, 0)
              // A UDP client may get the port of an earlier one, whose flow goes on.
              assert.isTrue(protocol === "tcp" ? connections === 21 : connections > 10 && connections <= 21)
              // The relay computes the same slot of a source.
              for (const size of [64, 1024] as const) {
                const { octets } = addressUnsafe(at.client)
                const slot = slotOfSource(octets, 0, octets.length, size)
                const others = slotsText(
                  Array.from({ length: size }, (_, one) => one).filter((one) => one !== slot)
                )
                yield* enforce(
                  to(at.web, `${others} of ${size}`, "source"),
                  to(at.other, `${slot} of ${size}`, "source")
                )
                assert.deepStrictEqual(yield* answers(4), new Set([`other to ${at.client}`]))
              }
            }
          })
        )

        it.effect(`admits only the sources of the allow-list, ${protocol} over IPv${family}`, () =>
          Effect.gen(function* () {
            const { client, c1: web } = yield* LabHost
            const own = family === 4 ? `${at.client}/32` : "fd99::/64"
            const foreign = family === 4 ? "198.51.100.0/24" : "2001:db8::/32"
            yield* enforce(
              redirect(`${protocol} ${at.any} 8080`, `${at.web} 80`, foreign, own),
              redirect(`${protocol} ${at.any} 8081`, `${at.web} 80`, foreign),
              redirect(`${protocol} ${at.own} 8080`, `${at.other} 80`, foreign),
              redirect(`${protocol} ${at.own} 8081`, `${at.other} 80`, own)
            )
            assert.deepStrictEqual(
              [
                yield* ask(client, `${protocol} ${at.bridge} 8080`),
                yield* ask(client, `${protocol} ${at.bridge} 8081`, silence),
                yield* ask(client, `${protocol} ${at.own} 8080`, silence),
                yield* ask(client, `${protocol} ${at.own} 8081`),
                yield* ask(web, `${protocol} ${at.own} 8081`, silence)
              ],
              [`web to ${at.client}`, "timeout", "timeout", `other to ${at.client}`, "timeout"]
            )
            const { counted } = yield* (yield* Firewall).read
            assert.deepStrictEqual(
              counted
                .map(({ rule, connections, dropped }) => [
                  rule.host.text,
                  rule.port,
                  connections,
                  dropped > 0
                ])
                .sort(),
              [
                [at.any, 8080, 1, false],
                [at.any, 8081, 0, true],
                [at.own, 8080, 0, true],
                [at.own, 8081, 1, true]
              ].sort()
            )
          })
        )

        it.effect(`drops what begins beyond the port's rate, ${protocol} over IPv${family}`, () =>
          Effect.gen(function* () {
            const { client, c1: web } = yield* LabHost
            const foreign = family === 4 ? "198.51.100.0/24" : "2001:db8::/32"
            const many = (port: number, patience = { timeoutMillis: 800 }) =>
              Effect.all(
                Array.from({ length: 6 }, () => ask(client, `${protocol} ${at.own} ${port}`, patience)),
                { concurrency: "unbounded" }
              )
            for (const address of [at.any, at.own]) {
              const rules = (rate: number) => [
                atRate(rate, redirect(`${protocol} ${address} 8080`, `${at.web} 80`)),
                redirect(`${protocol} ${address} 8081`, `${at.web} 80`),
                atRate(1, redirect(`${protocol} ${address} 8082`, `${at.web} 80`, foreign)),
                atRate(1, member(redirect(`${protocol} ${address} 8083`, `${at.web} 80`), "0-31 of 64")),
                atRate(1, member(redirect(`${protocol} ${address} 8083`, `${at.web} 80`), "32-63 of 64"))
              ]
              yield* enforce(...rules(1))
              const begun = performance.now()
              const answers = yield* many(8080)
              const most = 1 + Math.floor((performance.now() - begun) / 1000)
              const answered = answers.filter((answer) => answer === `web to ${at.client}`).length
              assert.isAtLeast(answered, 1)
              assert.isAtMost(answered, most)
              assert.deepStrictEqual(new Set(yield* many(8081)), new Set([`web to ${at.client}`]))
              // Neither a source that is not allowed nor the backend itself takes any of it.
              yield* many(8082, silence)
              yield* ask(web, `${protocol} ${at.own} 8080`, silence)
              yield* many(8083)
              const { counted } = yield* (yield* Firewall).read
              const [rated, free, denied] = [8080, 8081, 8082].map((port) =>
                counted.find((one) => one.rule.port === port)
              )
              assert.strictEqual(rated?.connections, answered)
              assert.isAbove(rated?.overRate ?? 0, 0)
              assert.deepStrictEqual([free?.connections, free?.overRate], [6, 0])
              assert.deepStrictEqual([denied?.overRate, (denied?.dropped ?? 0) >= 6], [0, true])
              // The drops of a service's port count once.
              const drops = counted.flatMap(({ rule, overRate }) => (rule.port === 8083 ? [overRate] : []))
              assert.deepStrictEqual(
                drops.filter((count) => count > 0),
                [Math.max(...drops)]
              )
              yield* (yield* Firewall).apply({ add: rules(1000).slice(0, 1), remove: [] })
              assert.deepStrictEqual(new Set(yield* many(8080)), new Set([`web to ${at.client}`]))
            }
          })
        )

        it.effect(
          `keeps sources from a limited port that is not redirected, ${protocol} over IPv${family}`,
          () =>
            Effect.gen(function* () {
              const { client, host } = yield* LabHost
              const port = family === 4 ? 9004 : 9006
              yield* enforce()
              yield* serve(host, protocol, at.any, port, "relay")
              assert.strictEqual(yield* ask(client, `${protocol} ${at.own} ${port}`), `relay to ${at.client}`)
              for (const address of [at.any, at.own]) {
                yield* enforce(
                  limit(`${protocol} ${address} ${port}`, family === 4 ? "10.99.0.0/24" : "fd99::/64")
                )
                assert.strictEqual(
                  yield* ask(client, `${protocol} ${at.own} ${port}`),
                  `relay to ${at.client}`
                )
                yield* enforce(limit(`${protocol} ${address} ${port}`))
                assert.strictEqual(yield* ask(client, `${protocol} ${at.own} ${port}`, silence), "timeout")
                assert.strictEqual(
                  yield* ask(host, `${protocol} ${family === 4 ? "127.0.0.1" : "::1"} ${port}`),
                  `relay to ${family === 4 ? "127.0.0.1" : "::1"}`
                )
                const { counted } = yield* (yield* Firewall).read
                assert.isTrue(counted.every(({ dropped }) => dropped > 0))
              }
            })
        )
      }

      it.effect(`leaves ${protocol} to and from loopback addresses to the socket`, () =>
        Effect.gen(function* () {
          const { host } = yield* LabHost
          yield* enforce(
            redirect(`${protocol} 0.0.0.0 8090`, "172.31.0.2 80"),
            redirect(`${protocol} :: 8090`, "fd66::2 80")
          )
          yield* serve(host, protocol, "0.0.0.0", 8090, "relay")
          yield* serve(host, protocol, "::1", 8090, "relay")
          assert.deepStrictEqual(
            [
              yield* ask(host, `${protocol} 127.0.0.1 8090`),
              yield* ask(host, `${protocol} ::1 8090`),
              yield* ask(host, "tcp 10.99.0.1 8090", { sourceAddress: "127.0.0.1" }),
              yield* ask(host, `${protocol} 10.99.0.1 8090`)
            ],
            ["relay to 127.0.0.1", "relay to ::1", "relay to 127.0.0.1", "web to 10.99.0.1"]
          )
        })
      )

      it.effect(`leaves ${protocol} from a link-local address to the socket`, () =>
        Effect.gen(function* () {
          const { client, host } = yield* LabHost
          yield* enforce(redirect(`${protocol} :: 8091`, "fd66::2 80"))
          yield* serve(host, protocol, "::", 8091, "relay")
          const [, linkLocal] = /inet6 (fe80::[^/]+)/.exec(ip("-6 address show dev up0 scope link")) ?? []
          assert.match(yield* ask(client, `${protocol} ${linkLocal}%eth0 8091`), /^relay to fe80::/)
          assert.strictEqual(yield* ask(client, `${protocol} fd99::1 8091`), "web to fd99::2")
        })
      )

      it.effect(
        `drops outsiders' ${protocol} to a port on a loopback address, where the host routes it`,
        () =>
          Effect.gen(function* () {
            const { client, host } = yield* LabHost
            writeFileSync("/proc/sys/net/ipv4/conf/up0/route_localnet", "1")
            yield* client.sh("ip address flush dev lo")
            yield* client.sh("ip route replace 127.0.0.2 via 10.99.0.1")
            yield* client.sh("sysctl -qw net.ipv4.conf.eth0.route_localnet=1")
            yield* serve(host, protocol, "127.0.0.2", 8092, "relay")
            yield* enforce()
            assert.strictEqual(
              yield* ask(client, `${protocol} 127.0.0.2 8092`, { sourceAddress: "10.99.0.2" }),
              "relay to 10.99.0.2"
            )
            yield* enforce(guard(`${protocol} 127.0.0.2 8092`))
            assert.strictEqual(
              yield* ask(client, `${protocol} 127.0.0.2 8092`, { sourceAddress: "10.99.0.2", ...silence }),
              "timeout"
            )
            assert.strictEqual(yield* ask(host, `${protocol} 127.0.0.2 8092`), "relay to 127.0.0.1")
            // A redirection of another table to this address is its own business: the outsider did not address
            // loopback.
            run(
              "nft -f -",
              `table inet others {
                chain prerouting {
                  type nat hook prerouting priority dstnat
                  ${protocol} dport 8093 dnat ip to 127.0.0.2:8092
                }
              }`
            )
            assert.strictEqual(yield* ask(client, `${protocol} 10.99.0.1 8093`), "relay to 10.99.0.2")
            run("nft delete table inet others")
            // Untracked packets do not help an outsider either.
            run(
              "nft -f -",
              `table inet others {
                chain early { type filter hook prerouting priority -310; ${protocol} dport 8092 notrack; }
                chain back { type filter hook output priority -310; ${protocol} sport 8092 notrack; }
              }`
            )
            assert.strictEqual(
              yield* ask(client, `${protocol} 127.0.0.2 8092`, { sourceAddress: "10.99.0.2", ...silence }),
              "timeout"
            )
            run("nft delete table inet others")
          })
      )
    }

    it.effect("marks every packet of our redirections, and of no others", () =>
      Effect.gen(function* () {
        const { client, c1: web } = yield* LabHost
        yield* web.agent.hold({ protocol: "udp", port: 7000 })
        // In the place of Docker: another table's redirection at -100, and a forward chain that counts the
        // packets it would accept.
        run(
          "nft -f -",
          `table inet docker {
            chain prerouting {
              type nat hook prerouting priority dstnat
              fib daddr type local udp dport 7001 dnat ip to 172.31.0.2:7000
            }
            chain early { type filter hook prerouting priority -103; udp dport 7000 ct status dnat counter; }
            chain ours { counter; ct state new meta mark and 0xf000 == 0x5000 counter; }
            chain theirs { counter; meta mark != 0 counter; }
            chain forward {
              type filter hook forward priority 0
              meta l4proto udp ct original proto-dst 7000 jump ours
              meta l4proto udp ct original proto-dst 7001 jump theirs
            }
          }`
        )
        yield* enforce(redirect("udp 0.0.0.0 7000", "172.31.0.2 7000"))
        yield* ask(client, "udp 10.99.0.1 7000", { rounds: 5, timeoutMillis: 50 })
        yield* ask(client, "udp 10.99.0.1 7001", { rounds: 5, timeoutMillis: 50 })
        assert.deepStrictEqual(
          [counters("inet docker ours"), counters("inet docker theirs")],
          [
            [5, 5],
            [5, 0]
          ]
        )
        // A filter chain between the priorities of two nat chains sees the first packet before either of them.
        assert.deepStrictEqual(counters("inet docker early"), [4])
        run("nft delete table inet docker")
      })
    )

    it.effect("keeps the bits outside the accept mark's mask", () =>
      Effect.gen(function* () {
        const { client } = yield* LabHost
        run(
          "nft -f -",
          `table inet marks {
            chain before { type filter hook prerouting priority mangle; udp dport 7002 meta mark set 0xfabc2cde; }
            chain after { type filter hook forward priority 0; meta l4proto udp ct original proto-dst 7002 meta mark 0xfabc5cde counter; }
          }`
        )
        yield* enforce(redirect("udp 0.0.0.0 7002", "172.31.0.2 7000"))
        yield* ask(client, "udp 10.99.0.1 7002", { rounds: 3, timeoutMillis: 50 })
        assert.strictEqual(counters("inet marks after")[0], 3)
        run("nft delete table inet marks")
      })
    )

    it.effect(
      "reaches the backend where bridged packets pass the IP tables, and leaves itself to the socket",
      () =>
        Effect.gen(function* () {
          const { host, c2: other, c1: web } = yield* LabHost
          if (!existsSync(bridgedPacketsPassTables)) return
          writeFileSync(bridgedPacketsPassTables, "1")
          yield* enforce(redirect("tcp 0.0.0.0 8080", "172.31.0.2 80"))
          yield* serve(host, "tcp", "172.31.0.1", 8080, "relay")
          assert.strictEqual(yield* ask(other, "tcp 172.31.0.1 8080"), "web to 172.31.0.1")
          assert.strictEqual(yield* ask(web, "tcp 172.31.0.1 8080"), "relay to 172.31.0.2")
          writeFileSync(bridgedPacketsPassTables, "0")
        })
    )

    it.effect(
      "never masquerades another program's redirection back to where it came from, whatever its marks",
      () =>
        Effect.gen(function* () {
          const { client, c2: other } = yield* LabHost
          run(
            "nft -f -",
            `table inet docker {
            chain before { type filter hook prerouting priority mangle; tcp dport { 7003, 7004, 7005 } meta mark set 0xffff2fff; }
            chain early { type nat hook prerouting priority -110; tcp dport 7005 dnat ip to 172.31.0.2:80; }
            chain prerouting { type nat hook prerouting priority dstnat; tcp dport 7003 meta mark set 0xffff2fff dnat ip to 172.31.0.2:80; }
            chain after { type filter hook postrouting priority 300; ip saddr 172.31.0.3 tcp dport 80 meta mark 0xffff2fff counter; }
          }`
          )
          yield* enforce(
            redirect("tcp 0.0.0.0 7004", "172.31.0.2 80"),
            redirect("tcp 0.0.0.0 7005", "172.31.0.2 80")
          )
          let theirs = 0
          for (const port of [7003, 7005]) {
            yield* ask(other, `tcp 172.31.0.1 ${port}`, silence)
            const [now = 0] = counters("inet docker after")
            assert.isAbove(now, theirs, `${port}`)
            theirs = now
          }
          assert.strictEqual(yield* ask(other, "tcp 172.31.0.1 7004"), "web to 172.31.0.1")
          assert.strictEqual(counters("inet docker after")[0], theirs)
          // A foreign mark does not make ours masquerade either.
          assert.strictEqual(yield* ask(client, "tcp 10.99.0.1 7004"), "web to 10.99.0.2")
          run("nft delete table inet docker")
        })
    )

    it.effect("keeps connections made before a change, and sends new ones to the new backend", () =>
      Effect.gen(function* () {
        const { client } = yield* LabHost
        yield* enforce(redirect("udp 0.0.0.0 8080", "172.31.0.2 80"))
        assert.strictEqual(yield* ask(client, "udp 10.99.0.1 8080"), "web to 10.99.0.2")
        yield* (yield* Firewall).apply({ add: [redirect("udp 0.0.0.0 8080", "172.31.0.3 80")], remove: [] })
        assert.strictEqual(yield* ask(client, "udp 10.99.0.1 8080"), "other to 10.99.0.2")
        yield* enforce()
        assert.strictEqual(yield* ask(client, "udp 10.99.0.1 8080"), "relay to 10.99.0.2")
      })
    )
  })
})
