/** The table's effect on packets: from outside, from a neighbour, from the container itself and from the host. */
import { writeFileSync } from "node:fs"
import { assert, layer as withLayer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { layer as nftFirewall } from "../../../adapters/linux/nft/NftFirewall.ts"
import { Firewall, type Rule } from "../../../src/firewall/Firewall.ts"
import { guard, limit, redirect } from "../../firewall/firewallConformance.ts"
import type { Command } from "../agent.ts"
import { describeInNamespace, ip, run } from "../namespace.ts"
import { type Agent, bridgeNetfilter, makeNetwork, type Network as NetworkShape } from "../network.ts"

class Network extends Context.Service<Network, NetworkShape>()("test/linux/Network") {
  static readonly layer = Layer.effect(Network, makeNetwork)
}

const acceptMark = { mark: 0x5000, mask: 0xf000 }

describeInNamespace("Ruleset, with packets", () => {
  withLayer(Layer.merge(Network.layer, nftFirewall({ acceptMark })), {
    timeout: 30_000,
    excludeTestServices: true
  })((it) => {
    const serve = (agent: Agent, protocol: "tcp" | "udp", address: string, port: number, name: string) =>
      agent.tell({ do: "serve", protocol, address, port, name })

    const ask = (agent: Agent, target: string, more: Partial<Command & { do: "ask" }> = {}) => {
      const [protocol, address = "", port] = target.split(" ")
      return agent.tell({
        do: "ask",
        protocol: protocol as "tcp" | "udp",
        address,
        port: Number(port),
        ...more
      })
    }

    /** Exactly these rules, with their counters at zero. */
    const enforce = (...rules: ReadonlyArray<Rule>) =>
      Firewall.use(({ replace }) => Effect.andThen(replace([]), replace(rules)))

    /** The counters of a chain, in order. */
    const counters = (chain: string) =>
      [...run(`nft list chain ${chain}`).matchAll(/packets (\d+)/g)].map(([, packets]) => Number(packets))

    it.effect("starts the containers' servers", () =>
      Effect.gen(function* () {
        const { web, other } = yield* Network
        for (const protocol of ["tcp", "udp"] as const) {
          assert.strictEqual(yield* serve(web, protocol, "10.0.0.2", 80, "web"), "serving")
          assert.strictEqual(yield* serve(web, protocol, "fd00::2", 80, "web"), "serving")
          assert.strictEqual(yield* serve(other, protocol, "10.0.0.3", 80, "other"), "serving")
          assert.strictEqual(yield* serve(other, protocol, "fd00::3", 80, "other"), "serving")
        }
      })
    )

    for (const protocol of ["tcp", "udp"] as const) {
      const four = {
        any: "0.0.0.0",
        own: "192.0.2.1",
        client: "192.0.2.2",
        web: "10.0.0.2",
        other: "10.0.0.3",
        bridge: "10.0.0.1"
      }
      const six = {
        any: "::",
        own: "fd00:2::1",
        client: "fd00:2::2",
        web: "fd00::2",
        other: "fd00::3",
        bridge: "fd00::1"
      }
      for (const [family, at] of [
        [4, four],
        [6, six]
      ] as const) {
        it.effect(`redirects ${protocol} over IPv${family} by any address of the host, from everywhere`, () =>
          Effect.gen(function* () {
            const { client, host, web, other } = yield* Network
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
            const { client, host, web, other } = yield* Network
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

        it.effect(`admits only the sources of the allow-list, ${protocol} over IPv${family}`, () =>
          Effect.gen(function* () {
            const { client, web } = yield* Network
            const own = family === 4 ? `${at.client}/32` : "fd00:2::/64"
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
                yield* ask(client, `${protocol} ${at.bridge} 8081`),
                yield* ask(client, `${protocol} ${at.own} 8080`),
                yield* ask(client, `${protocol} ${at.own} 8081`),
                yield* ask(web, `${protocol} ${at.own} 8081`)
              ],
              [`web to ${at.client}`, "silence", "silence", `other to ${at.client}`, "silence"]
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

        it.effect(
          `keeps sources from a limited port that is not redirected, ${protocol} over IPv${family}`,
          () =>
            Effect.gen(function* () {
              const { client, host } = yield* Network
              const port = family === 4 ? 9004 : 9006
              yield* enforce()
              yield* serve(host, protocol, at.any, port, "relay")
              assert.strictEqual(yield* ask(client, `${protocol} ${at.own} ${port}`), `relay to ${at.client}`)
              for (const address of [at.any, at.own]) {
                yield* enforce(
                  limit(`${protocol} ${address} ${port}`, family === 4 ? "192.0.2.0/24" : "fd00:2::/64")
                )
                assert.strictEqual(
                  yield* ask(client, `${protocol} ${at.own} ${port}`),
                  `relay to ${at.client}`
                )
                yield* enforce(limit(`${protocol} ${address} ${port}`))
                assert.strictEqual(yield* ask(client, `${protocol} ${at.own} ${port}`), "silence")
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
          const { host } = yield* Network
          yield* enforce(
            redirect(`${protocol} 0.0.0.0 8090`, "10.0.0.2 80"),
            redirect(`${protocol} :: 8090`, "fd00::2 80")
          )
          yield* serve(host, protocol, "0.0.0.0", 8090, "relay")
          yield* serve(host, protocol, "::1", 8090, "relay")
          assert.deepStrictEqual(
            [
              yield* ask(host, `${protocol} 127.0.0.1 8090`),
              yield* ask(host, `${protocol} ::1 8090`),
              yield* ask(host, "tcp 192.0.2.1 8090", { from: "127.0.0.1" }),
              yield* ask(host, `${protocol} 192.0.2.1 8090`)
            ],
            ["relay to 127.0.0.1", "relay to ::1", "relay to 127.0.0.1", "web to 192.0.2.1"]
          )
        })
      )

      it.effect(`leaves ${protocol} from a link-local address to the socket`, () =>
        Effect.gen(function* () {
          const { client, host } = yield* Network
          yield* enforce(redirect(`${protocol} :: 8091`, "fd00::2 80"))
          yield* serve(host, protocol, "::", 8091, "relay")
          const [, linkLocal] = /inet6 (fe80::[^/]+)/.exec(ip("-6 address show dev eth0 scope link")) ?? []
          assert.match(yield* ask(client, `${protocol} ${linkLocal}%up0 8091`), /^relay to fe80::/)
          assert.strictEqual(yield* ask(client, `${protocol} fd00:2::1 8091`), "web to fd00:2::2")
        })
      )

      it.effect(
        `drops outsiders' ${protocol} to a port on a loopback address, where the host routes it`,
        () =>
          Effect.gen(function* () {
            const { client, host } = yield* Network
            writeFileSync("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1")
            client.run("ip address flush dev lo")
            client.run("ip route replace 127.0.0.2 via 192.0.2.1")
            client.run("sysctl -qw net.ipv4.conf.up0.route_localnet=1")
            yield* serve(host, protocol, "127.0.0.2", 8092, "relay")
            yield* enforce()
            assert.strictEqual(
              yield* ask(client, `${protocol} 127.0.0.2 8092`, { from: "192.0.2.2" }),
              "relay to 192.0.2.2"
            )
            yield* enforce(guard(`${protocol} 127.0.0.2 8092`))
            assert.strictEqual(
              yield* ask(client, `${protocol} 127.0.0.2 8092`, { from: "192.0.2.2" }),
              "silence"
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
            assert.strictEqual(yield* ask(client, `${protocol} 192.0.2.1 8093`), "relay to 192.0.2.2")
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
              yield* ask(client, `${protocol} 127.0.0.2 8092`, { from: "192.0.2.2" }),
              "silence"
            )
            run("nft delete table inet others")
          })
      )
    }

    it.effect("marks every packet of our redirections, and of no others", () =>
      Effect.gen(function* () {
        const { client, web } = yield* Network
        yield* serve(web, "udp", "10.0.0.2", 7000, "")
        // In the place of Docker: another table's redirection at -100, and a forward chain that counts the
        // packets it would accept.
        run(
          "nft -f -",
          `table inet docker {
            chain prerouting {
              type nat hook prerouting priority dstnat
              fib daddr type local udp dport 7001 dnat ip to 10.0.0.2:7000
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
        yield* enforce(redirect("udp 0.0.0.0 7000", "10.0.0.2 7000"))
        yield* ask(client, "udp 192.0.2.1 7000", { times: 5 })
        yield* ask(client, "udp 192.0.2.1 7001", { times: 5 })
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
        const { client } = yield* Network
        run(
          "nft -f -",
          `table inet marks {
            chain before { type filter hook prerouting priority mangle; udp dport 7002 meta mark set 0xfabc2cde; }
            chain after { type filter hook forward priority 0; meta l4proto udp ct original proto-dst 7002 meta mark 0xfabc5cde counter; }
          }`
        )
        yield* enforce(redirect("udp 0.0.0.0 7002", "10.0.0.2 7000"))
        yield* ask(client, "udp 192.0.2.1 7002", { times: 3 })
        assert.strictEqual(counters("inet marks after")[0], 3)
        run("nft delete table inet marks")
      })
    )

    it.effect(
      "reaches the backend where bridged packets pass the IP tables, and leaves itself to the socket",
      () =>
        Effect.gen(function* () {
          const { host, other, web } = yield* Network
          if (!bridgeNetfilter("1")) return
          yield* enforce(redirect("tcp 0.0.0.0 8080", "10.0.0.2 80"))
          yield* serve(host, "tcp", "10.0.0.1", 8080, "relay")
          assert.strictEqual(yield* ask(other, "tcp 10.0.0.1 8080"), "web to 10.0.0.1")
          assert.strictEqual(yield* ask(web, "tcp 10.0.0.1 8080"), "relay to 10.0.0.2")
          bridgeNetfilter("0")
        })
    )

    it.effect(
      "never masquerades another program's redirection back to where it came from, whatever its marks",
      () =>
        Effect.gen(function* () {
          const { client, other } = yield* Network
          run(
            "nft -f -",
            `table inet docker {
            chain before { type filter hook prerouting priority mangle; tcp dport { 7003, 7004, 7005 } meta mark set 0xffff2fff; }
            chain early { type nat hook prerouting priority -110; tcp dport 7005 dnat ip to 10.0.0.2:80; }
            chain prerouting { type nat hook prerouting priority dstnat; tcp dport 7003 meta mark set 0xffff2fff dnat ip to 10.0.0.2:80; }
            chain after { type filter hook postrouting priority 300; ip saddr 10.0.0.3 tcp dport 80 meta mark 0xffff2fff counter; }
          }`
          )
          yield* enforce(
            redirect("tcp 0.0.0.0 7004", "10.0.0.2 80"),
            redirect("tcp 0.0.0.0 7005", "10.0.0.2 80")
          )
          let theirs = 0
          for (const port of [7003, 7005]) {
            yield* ask(other, `tcp 10.0.0.1 ${port}`)
            const [now = 0] = counters("inet docker after")
            assert.isAbove(now, theirs, `${port}`)
            theirs = now
          }
          assert.strictEqual(yield* ask(other, "tcp 10.0.0.1 7004"), "web to 10.0.0.1")
          assert.strictEqual(counters("inet docker after")[0], theirs)
          // A foreign mark does not make ours masquerade either.
          assert.strictEqual(yield* ask(client, "tcp 192.0.2.1 7004"), "web to 192.0.2.2")
          run("nft delete table inet docker")
        })
    )

    it.effect("keeps connections made before a change, and sends new ones to the new backend", () =>
      Effect.gen(function* () {
        const { client } = yield* Network
        yield* enforce(redirect("udp 0.0.0.0 8080", "10.0.0.2 80"))
        assert.strictEqual(yield* ask(client, "udp 192.0.2.1 8080"), "web to 192.0.2.2")
        yield* (yield* Firewall).apply({ add: [redirect("udp 0.0.0.0 8080", "10.0.0.3 80")], remove: [] })
        assert.strictEqual(yield* ask(client, "udp 192.0.2.1 8080"), "other to 192.0.2.2")
        yield* enforce()
        assert.strictEqual(yield* ask(client, "udp 192.0.2.1 8080"), "relay to 192.0.2.2")
      })
    )
  })
}, ["sysctl"])
