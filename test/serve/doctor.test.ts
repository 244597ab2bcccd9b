/**
 * What `portmapper doctor` reports of rules that drop published traffic, compared with the packets that they really
 * drop.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"
import { doctor } from "./doctor.ts"

interface Planted {
  readonly style: string
  readonly plant: string
  /** Table, chain and rule of each drop, and the affected ports. */
  readonly found: ReadonlyArray<readonly [table: string, chain: string, rule: string, ports: string]>
  /** Whether a client reaches the redirected port, and the relayed one. */
  readonly reached: readonly [redirected: boolean, relayed: boolean]
  /** Whether the command of the remedy is installed. */
  readonly tried: boolean
  readonly clear: string
}

const redirected = "0.0.0.0:8080/tcp"
const relayed = "0.0.0.0:8081/tcp"

const planted: ReadonlyArray<Planted> = [
  {
    style: "iptables-nft",
    plant: "iptables-nft -A FORWARD -o br0 -m conntrack --ctstate NEW -j DROP",
    found: [
      [
        "ip filter (iptables-nft)",
        "FORWARD",
        "-A FORWARD -o br0 -m conntrack --ctstate NEW -j DROP",
        redirected
      ]
    ],
    reached: [false, true],
    tried: true,
    clear: "iptables-nft -F; nft delete table ip filter"
  },
  {
    style: "iptables-legacy",
    plant: `iptables-legacy -N LIMITS
      iptables-legacy -A FORWARD -p tcp -m tcp --dport 80 -j LIMITS
      iptables-legacy -A LIMITS -d 172.31.0.0/24 -j REJECT --reject-with tcp-reset -p tcp`,
    found: [
      [
        "ip filter (iptables-legacy)",
        "LIMITS",
        "-A LIMITS -d 172.31.0.0/24 -p tcp -j REJECT --reject-with tcp-reset",
        redirected
      ]
    ],
    reached: [false, true],
    tried: true,
    clear: "iptables-legacy -F; iptables-legacy -X"
  },
  {
    style: "nft",
    plant: `nft -f - <<'END'
      table inet mine {
        chain fw {
          type filter hook forward priority 10; policy accept
          iifname "up0" oifname "br0" ct state new counter drop
        }
      }
END`,
    found: [["inet mine (nft)", "fw", 'iifname "up0" oifname "br0" ct state new drop', redirected]],
    reached: [false, true],
    tried: true,
    clear: "nft delete table inet mine"
  },
  {
    style: "ufw",
    plant: `iptables-nft-restore <<'END'
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-before-forward - [0:0]
:ufw-user-input - [0:0]
:ufw-user-forward - [0:0]
-A INPUT -j ufw-before-input
-A FORWARD -j ufw-before-forward
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
COMMIT
END`,
    found: [
      ["ip filter (iptables-nft)", "FORWARD", "policy drop", redirected],
      ["ip filter (iptables-nft)", "INPUT", "policy drop", relayed]
    ],
    reached: [false, false],
    tried: false,
    clear: "nft delete table ip filter"
  },
  {
    style: "firewalld",
    plant: `nft -f - <<'END'
      table inet firewalld {
        chain filter_INPUT {
          type filter hook input priority 10; policy accept
          ct state { established, related } accept
          ct status dnat accept
          iifname "lo" accept
          ct state invalid drop
          jump filter_INPUT_ZONES
          reject with icmpx admin-prohibited
        }
        chain filter_FORWARD {
          type filter hook forward priority 10; policy accept
          ct state { established, related } accept
          iifname "lo" accept
          ct state invalid drop
          jump filter_FORWARD_ZONES
          reject with icmpx admin-prohibited
        }
        chain filter_INPUT_ZONES { iifname vmap { "up0" : goto filter_IN_public }; }
        chain filter_IN_public { tcp dport 22 accept; }
        chain filter_FORWARD_ZONES { iifname "br0" accept; }
      }
END`,
    found: [
      ["inet firewalld (nft)", "filter_FORWARD", "reject with icmpx admin-prohibited", redirected],
      ["inet firewalld (nft)", "filter_INPUT", "reject with icmpx admin-prohibited", relayed]
    ],
    reached: [false, false],
    tried: false,
    clear: "nft delete table inet firewalld"
  }
]

describeLab("doctor", ["iptables"], () => {
  it.live("names table, chain and rule of every drop of published traffic, and the remedy", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", port: 80 })
      const plugin = yield* Plugin.start(host)
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
      yield* plugin.map(["tcp 0.0.0.0:8081 172.31.0.2:80"], { "portmapper.mode": "proxy" })
      /** The expected outcomes, in the same order: the test waits less for expected silence. */
      const reached = (...wanted: ReadonlyArray<boolean>) =>
        Effect.forEach([8080, 8081], (port, index) =>
          Effect.map(
            client.agent.tcp({
              host: "10.99.0.1",
              port,
              ...(wanted[index] === true ? {} : { timeoutMillis: silenceMillis })
            }),
            ({ outcome }) => outcome === "answered"
          )
        )
      const drops = Effect.map(doctor(host, plugin.socket), (report) => report.drops)

      assert.deepStrictEqual(yield* reached(true, true), [true, true])
      const clean = yield* doctor(host, plugin.socket)
      assert.deepStrictEqual(clean.drops, [])
      assert.deepStrictEqual(
        clean.checks.filter(({ name }) => name === "other rules").map(({ status, found }) => [status, found]),
        [["ok", "nothing in 0 tables of others drops published traffic"]]
      )

      for (const { style, plant, found, reached: expected, tried, clear } of planted) {
        yield* host.sh(plant)
        assert.deepStrictEqual(yield* reached(...expected), [...expected], style)
        const report = yield* drops
        assert.deepStrictEqual(
          report.map(({ table, chain, rule, ports }) => [table, chain, rule, ports.join(" ")]),
          found.map((drop) => [...drop]),
          style
        )
        if (tried) {
          for (const { remedy } of report) yield* host.sh(remedy)
          assert.deepStrictEqual(yield* reached(true, true), [true, true], style)
          assert.deepStrictEqual(yield* drops, [], style)
        }
        yield* host.sh(clear)
        assert.deepStrictEqual(yield* reached(true, true), [true, true], `${style} cleared`)
      }
    })
  )

  it.live("checks ports that might be published where no plugin runs", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const report = Effect.map(doctor(host, "/nonexistent/plugin.sock"), ({ drops }) =>
        drops.map(({ table, chain, rule, traffic }) => [table, chain, rule, traffic])
      )
      assert.deepStrictEqual(yield* report, [])
      yield* host.sh("ip6tables-nft -P FORWARD DROP; iptables-legacy -A INPUT -p tcp --dport 1024: -j DROP")
      assert.deepStrictEqual(yield* report, [
        [
          "ip filter (iptables-legacy)",
          "INPUT",
          "-A INPUT -p tcp -m tcp --dport 1024:65535 -j DROP",
          "relayed"
        ],
        ["ip6 filter (iptables-nft)", "FORWARD", "policy drop", "redirected"]
      ])
    })
  )
})
