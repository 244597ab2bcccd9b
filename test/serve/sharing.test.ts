/**
 * Published ports beside other programs with rules on the host: Docker, ufw, firewalld, and the bridge's own filter.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"
import { doctor } from "./doctor.ts"

const echoes = (container: Namespace) =>
  Effect.forEach(["tcp", "udp"] as const, (protocol) =>
    Effect.forEach(["0.0.0.0", "::"], (host) => container.agent.echo({ protocol, host, port: 80 }))
  )

const silence = { timeoutMillis: silenceMillis }

/** The containers that answer by TCP and by UDP, or the outcome instead. */
const ask = (
  from: Namespace,
  host: string,
  port: number,
  more: { readonly sourceAddress?: string; readonly timeoutMillis?: number } = {}
) =>
  Effect.all([
    Effect.map(
      from.agent.tcp({ host, port, close: "reset", ...more }),
      ({ outcome, answer }) => answer?.who ?? outcome
    ),
    Effect.map(from.agent.udp({ host, port, ...more }), ({ outcome, replies }) => replies[0]?.who ?? outcome)
  ])

const both = (host: string, port: number, backend: string) => [
  `tcp ${host}:${port} ${backend}:80`,
  `udp ${host}:${port} ${backend}:80`
]
/** Each protocol is a separate group. */
const mapBoth = (plugin: Plugin.Plugin, host: string, port: number, backend: string, labels = {}) =>
  Effect.forEach(both(host, port, backend), (entry) => plugin.map([entry], labels))

const proxy = { "portmapper.mode": "proxy" }
const answered = ["c1", "c1"]

describeLab("published ports beside Docker's chains", ["dockerd", "iptables", "conntrack"], () => {
  it.live("are reached once a rule of DOCKER-USER accepts their mark, or redirected traffic", () =>
    Effect.gen(function* () {
      // An Engine that has to enable forwarding also sets the policy to drop.
      const { host, client, c1, c2 } = yield* Lab.make({ hostSysctls: { "net.ipv4.ip_forward": "0" } })
      yield* echoes(c1)
      const plugin = yield* Plugin.start(host, { arguments: ["--accept-fwmark", "0x5000/0xf000"] })
      yield* mapBoth(plugin, "0.0.0.0", 8080, "172.31.0.2")
      yield* mapBoth(plugin, "0.0.0.0", 8081, "172.31.0.2", proxy)
      // The Engine takes the lab's bridge for its own, and drops traffic to ports that it did not publish.
      yield* Dockerd.start(host, { bridge: true, iptables: true, args: ["--bridge=br0"] })
      assert.match(yield* host.check("iptables", ["-S", "FORWARD"]), /^-P FORWARD DROP$/m)
      assert.deepStrictEqual(yield* ask(client, "10.99.0.1", 8080, silence), ["timeout", "timeout"])
      assert.deepStrictEqual(yield* ask(client, "10.99.0.1", 8081), answered)
      assert.deepStrictEqual(yield* ask(host, "10.99.0.1", 8080), answered)
      assert.deepStrictEqual(yield* ask(c2, "10.99.0.1", 8080), answered)
      // The Engine drops ports that no rule opens, and doctor reports that; it does not report ports that the
      // Engine would open.
      assert.deepStrictEqual(
        (yield* doctor(host, plugin.socket)).drops.map(({ table, chain, rule, ports }) => [
          table,
          chain,
          rule,
          ...ports
        ]),
        [["ip filter (iptables-nft)", "FORWARD", "policy drop", "0.0.0.0:8080/tcp", "0.0.0.0:8080/udp"]]
      )
      assert.deepStrictEqual((yield* doctor(host, "/nonexistent/plugin.sock")).drops, [])
      for (const match of ["-m mark --mark 0x5000/0xf000", "-m conntrack --ctstate DNAT"]) {
        yield* host.sh(`iptables -I DOCKER-USER ${match} -j ACCEPT`)
        assert.deepStrictEqual(yield* ask(client, "10.99.0.1", 8080), answered, match)
        assert.deepStrictEqual((yield* doctor(host, plugin.socket)).drops, [], match)
        yield* host.sh(`iptables -D DOCKER-USER ${match} -j ACCEPT`)
        // Admitted flows go on; new ones are dropped.
        yield* host.check("conntrack", ["-F"])
        assert.deepStrictEqual(yield* ask(client, "10.99.0.1", 8080, silence), ["timeout", "timeout"], match)
      }
    })
  )
})

describeLab("published ports beside the rules of others", ["iptables"], () => {
  it.live("pass ufw's INPUT where they are redirected, and need an allow rule where they are relayed", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* echoes(c1)
      const plugin = yield* Plugin.start(host)
      for (const ip of ["iptables", "ip6tables"])
        yield* host.sh(`${ip} -N ufw-before-input; ${ip} -N ufw-user-input
          ${ip} -A INPUT -j ufw-before-input
          ${ip} -A ufw-before-input -i lo -j ACCEPT
          ${ip} -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
          ${ip} -A ufw-before-input -p ${ip === "iptables" ? "icmp" : "icmpv6"} -j ACCEPT
          ${ip} -A ufw-before-input -j ufw-user-input
          ${ip} -P INPUT DROP`)
      yield* mapBoth(plugin, "0.0.0.0", 8080, "172.31.0.2")
      yield* mapBoth(plugin, "[::]", 8080, "[fd66::2]")
      yield* mapBoth(plugin, "0.0.0.0", 8081, "172.31.0.2", proxy)
      yield* mapBoth(plugin, "[::]", 8081, "[fd66::2]", proxy)
      for (const address of ["10.99.0.1", "fd99::1"]) {
        assert.deepStrictEqual(yield* ask(client, address, 8080), answered, address)
        assert.deepStrictEqual(yield* ask(client, address, 8081, silence), ["timeout", "timeout"], address)
      }
      for (const ip of ["iptables", "ip6tables"])
        for (const protocol of ["tcp", "udp"])
          yield* host.sh(`${ip} -A ufw-user-input -p ${protocol} --dport 8081 -j ACCEPT`)
      for (const address of ["10.99.0.1", "fd99::1"])
        assert.deepStrictEqual(yield* ask(client, address, 8081), answered, address)
    })
  )

  it.live(
    "pass firewalld's tables where they are redirected, and need an allow rule where they are relayed",
    () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* echoes(c1)
        const plugin = yield* Plugin.start(host)
        const chain = (name: string, hook: string) => `chain ${name} {
          type filter hook ${hook} priority 10; policy accept
          ct state { established, related } accept
          ct status dnat accept
          iifname "lo" accept
          icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
          ct state invalid drop
          jump ${name}_ZONES
          reject with icmpx admin-prohibited
        }
        chain ${name}_ZONES {
        }`
        yield* host.check("nft", ["-f", "-"], {
          input: `table inet firewalld {
          ${chain("filter_INPUT", "input")}
          ${chain("filter_FORWARD", "forward")}
        }`
        })
        yield* mapBoth(plugin, "0.0.0.0", 8080, "172.31.0.2")
        yield* mapBoth(plugin, "0.0.0.0", 8081, "172.31.0.2", proxy)
        yield* host.check("nft", ["add rule inet firewalld filter_FORWARD_ZONES iifname br0 accept"])
        assert.deepStrictEqual(yield* ask(client, "10.99.0.1", 8080), answered)
        assert.deepStrictEqual(yield* ask(client, "10.99.0.1", 8081), ["unreachable", "unreachable"])
        yield* host.check("nft", [
          "add rule inet firewalld filter_INPUT_ZONES meta l4proto { tcp, udp } th dport 8081 accept"
        ])
        assert.deepStrictEqual(yield* ask(client, "10.99.0.1", 8081), answered)
      })
  )

  it.live("are reached where bridged packets pass the IP tables", () =>
    Effect.gen(function* () {
      const { host, client, c1, c2 } = yield* Lab.make({ bridgeNetfilter: true })
      const setting = yield* host.sh(
        "cat /proc/sys/net/bridge/bridge-nf-call-iptables 2>/dev/null || echo none"
      )
      if (setting.trim() === "none") return
      assert.strictEqual(setting.trim(), "1")
      yield* echoes(c1)
      const plugin = yield* Plugin.start(host)
      yield* mapBoth(plugin, "0.0.0.0", 8080, "172.31.0.2")
      yield* mapBoth(plugin, "[::]", 8080, "[fd66::2]")
      for (const from of [client, c2, c1, host])
        for (const address of ["10.99.0.1", "fd99::1"])
          assert.deepStrictEqual(yield* ask(from, address, 8080), answered, `${from.role} to ${address}`)
      // Neighbours that address each other directly are not affected.
      assert.deepStrictEqual(yield* ask(c2, "172.31.0.2", 80), answered)
    })
  )
})
