/**
 * The kernel table that redirects published ports, as text for `nft -f -` (nft(8)). Pure: nothing here loads it.
 *
 * What the kernel taught:
 * - nat chains of all tables run at the hook's own nat priority (-100 on the way in), one after the other in the order of their priorities,
 *   until one has chosen; a filter chain at -103 still sees the packet as it came. So our redirections are marked at -95.
 * - a mark's bits are anyone's, so none of them can say that a redirection is ours and not Docker's. The packet's type can:
 *   the kernel drops packets of type `other` before the first hook, so one that has it at -95 got it from us at -105.
 *   After that the redirection is known by conntrack labels, which unlike the conntrack mark nobody's routing looks at.
 * - nat chains see a flow's first packet only, so their counters count connections. A UDP flow without answers stays
 *   `new` for its later packets.
 * - a lookup breaks off its rule where nothing is found; `dnat` ends the walk where something is.
 * - a filter chain on the way costs every packet of a connection: one at the raw priority took more of a short connection
 *   than all that its first packet meets beyond a plain `dnat`. So what can be asked where fewer packets pass is asked there.
 * - a packet from a link-local IPv6 address is never forwarded, so it is not redirected: it is left to the socket.
 */
import { createHash } from "node:crypto"
import type { Family } from "../../../src/protocol/Address.ts"
import { type Scope, setOf, setText, tableSets } from "./TableSets.ts"

/** Both are unsigned 32-bit numbers. */
export interface AcceptMark {
  readonly mark: number
  readonly mask: number
}

export interface TableOptions {
  readonly name: string
  /** Set on every packet of a new connection that the table redirected; the bits of `mask` are replaced by `mark`. */
  readonly acceptMark: AcceptMark | undefined
}

export interface Table {
  readonly name: string
  /** Tells this definition from those of other options and other versions; the kernel keeps it with the table. */
  readonly comment: string
  readonly rules: number
  /**
   * One transaction that puts a table with these contents in the place of whatever has this name. No rule may need an
   * anonymous set or map (`{ 80, 443 }`): see `NftDefinition`.
   */
  readonly text: (name: string, flags?: "dormant") => string
}

export const makeTable = (options: TableOptions): Table => {
  const chains = chainsOf(options)
  const body = [...tableSets.map((set) => `  ${setText(set)}`), ...chains.map(chainText)].join("\n")
  const definition = createHash("sha256").update(body).digest("hex").slice(0, 12)
  return {
    name: options.name,
    comment: `published ports, kept by portmapper; definition ${definition}`,
    rules: chains.reduce((sum, { rules }) => sum + rules.length, 0),
    text: (name, flags) => `table inet ${name}
delete table inet ${name}
table inet ${name} {
${flags === undefined ? "" : `  flags ${flags};\n`}${body}
}
`
  }
}

interface Chain {
  readonly name: string
  readonly hook?: string
  readonly rules: ReadonlyArray<string>
}

const chainText = ({ name, hook, rules }: Chain): string =>
  [
    `  chain ${name} {`,
    ...(hook === undefined ? [] : [`    type ${hook};`]),
    ...rules.map((rule) => `    ${rule}`),
    "  }"
  ].join("\n")

const chainsOf = ({ acceptMark }: TableOptions): ReadonlyArray<Chain> => {
  const accepted =
    acceptMark === undefined
      ? undefined
      : `meta mark set meta mark and ${hex(~acceptMark.mask)} or ${hex(acceptMark.mark & acceptMark.mask)}`

  return [
    { name: "published4", rules: publishedRules(4) },
    { name: "published6", rules: publishedRules(6) },
    { name: "published", rules: ["meta nfproto ipv4 jump published4", "meta nfproto ipv6 jump published6"] },
    {
      // The type stays `other` only where a redirection ended the walk. A packet of another type is never forwarded.
      name: "arriving",
      rules: [
        "meta pkttype != host goto published",
        "meta pkttype set other",
        "jump published",
        "meta pkttype set host"
      ]
    },
    {
      name: "prerouting",
      hook: "nat hook prerouting priority -105",
      rules: ["fib daddr type local jump arriving"]
    },
    {
      name: "output",
      hook: "nat hook output priority -105",
      rules: ["fib daddr type local jump published"]
    },
    {
      name: "redirected",
      rules: [
        "meta pkttype set host",
        ...(accepted === undefined ? [] : [`ct label set ${redirectedLabel}`, accepted]),
        `fib daddr . iif oif exists ct label set ${hairpinLabel}`
      ]
    },
    {
      name: "marks",
      hook: "filter hook prerouting priority -95",
      // Every packet that comes in passes here, and nearly none is for it: the first look is the cheapest that tells.
      rules: [
        "meta pkttype other goto redirected",
        ...(accepted === undefined ? [] : [`ct state new ct label ${redirectedLabel} ${accepted}`])
      ]
    },
    {
      // Before an Engine's own chain, which would masquerade the next packet of a refused flow as one of a new flow.
      name: "postrouting",
      hook: "nat hook postrouting priority 95",
      rules: [
        `ct label ${hairpinLabel} masquerade`,
        ...([4, 6] as const).map((family) => {
          const ip = family === 4 ? "ip" : "ip6"
          const ends = `${ip} saddr . meta l4proto . th sport . ${ip} daddr . th dport`
          return `${ends} @${setOf("refused", "addr", family).name} drop`
        })
      ]
    },
    {
      // What another table leads to a loopback address was not sent there by an outsider.
      name: "outsiders",
      rules: [
        "ct status dnat return",
        `ip daddr . ${port} @${setOf("loopback", "addr", 4).name} drop`,
        `ip6 daddr . ${port} @${setOf("loopback", "addr", 6).name} drop`
      ]
    },
    {
      // Where the host's own sockets are: packets of what is redirected never come here.
      name: "guard",
      hook: "filter hook input priority raw",
      rules: ['iif != "lo" ip daddr 127.0.0.0/8 goto outsiders', 'iif != "lo" ip6 daddr ::1 goto outsiders']
    }
  ]
}

const port = "meta l4proto . th dport"

/**
 * Per scope, the specific address first: drop who is not on the allow-list of a port that has one, then redirect. A port
 * without an allow-list costs a lookup in an often empty set, whatever the others have.
 */
const publishedRules = (family: Family): ReadonlyArray<string> => {
  const ip = family === 4 ? "ip" : "ip6"
  const loopback = family === 4 ? "127.0.0.0/8" : "::1"
  const forwarded = family === 4 ? "" : "ip6 saddr != fe80::/10 "
  const rules = (scope: Scope, key: string): ReadonlyArray<string> => {
    const name = (kind: "limited" | "allowed" | "denied" | "redirect") => setOf(kind, scope, family).name
    return [
      `${key} @${name("limited")} ${key} . ${ip} saddr != @${name("allowed")} ${key} @${name("denied")} drop`,
      `${forwarded}dnat ${ip} to ${key} map @${name("redirect")}`
    ]
  }
  return [
    `${ip} saddr ${loopback} return`,
    `${ip} daddr ${loopback} return`,
    ...rules("addr", `${ip} daddr . ${port}`),
    ...rules("any", port)
  ]
}

/** Of a connection that the table redirected; set where later packets of it are to be marked, too. */
const redirectedLabel = 113
/** Of one whose backend is reached through the interface that its first packet came in on. */
const hairpinLabel = 114

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`
