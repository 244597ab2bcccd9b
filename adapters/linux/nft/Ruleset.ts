/**
 * The kernel table that redirects published ports, as text for `nft -f -` (nft(8)). Pure: nothing here loads it.
 *
 * How the kernel behaves:
 * - nat chains of all tables run at the hook's own nat priority (-100 on the way in), one after the other in the
 *   order of their priorities, until one has chosen; a filter chain at -103 still sees the packet unchanged. So our
 *   redirections are marked at -95.
 * - any program may set a mark's bits, so none of them can prove that a redirection is ours and not Docker's. The
 *   packet's type can: the kernel drops packets of type `other` before the first hook, so a packet that has it at
 *   -95 got it from us at -105. After that we recognise the redirection by conntrack labels, which no routing rule
 *   reads, unlike the conntrack mark.
 * - nat chains see a flow's first packet only, so their counters count connections. A UDP flow without answers
 *   stays `new` for its later packets.
 * - a lookup that finds nothing ends its rule; `dnat` ends the evaluation of the chain when it finds a backend.
 * - a filter chain on the path costs every packet of a connection: one at the raw priority cost a short connection
 *   more than everything that its first packet passes beyond a plain `dnat`. So each check stands where the fewest
 *   packets pass.
 * - a packet from a link-local IPv6 address is never forwarded, so the table does not redirect it, and the socket
 *   gets it.
 * - where bridged packets pass the IP tables (br_netfilter), a packet that is redirected back to the bridge port it
 *   came from is dropped, unless that port is in hairpin mode. So the table does not redirect what a backend sends
 *   to its own frontend, and the socket gets it.
 */
import { createHash } from "node:crypto"
import type { Family } from "../../../src/protocol/Address.ts"
import { sourceSeed } from "../../../src/relay/SourceHash.ts"
import { type Scope, serviceKinds, setOf, setText, tableSets } from "./TableSets.ts"

/** Both are unsigned 32-bit numbers. */
export interface AcceptMark {
  readonly mark: number
  readonly mask: number
}

/** In the format of `--bridge-accept-fwmark` and `iptables -m mark`. */
export const markText = ({ mark, mask }: AcceptMark): string =>
  mask >>> 0 === 0xffff_ffff ? hex(mark) : `${hex(mark)}/${hex(mask)}`

export interface TableOptions {
  readonly name: string
  /**
   * Set on every packet of a redirected connection, both ways: an Engine's isolation of its networks drops packets
   * of known connections, too. `mark` replaces the bits of `mask`.
   */
  readonly acceptMark: AcceptMark | undefined
}

export interface Table {
  readonly name: string
  /**
   * Distinguishes this definition from those of other options and other versions; the kernel stores it with the
   * table.
   */
  readonly comment: string
  /** The number of its rules where there are no services; where there are, `rulesOfServices` more. */
  readonly rules: number
  readonly rulesOfServices: number
  /**
   * One transaction that replaces any table of this name by one with these contents. No rule may need an anonymous
   * set or map (`{ 80, 443 }`): see `NftDefinition`.
   */
  readonly text: (name: string, flags?: "dormant") => string
}

export const makeTable = (options: TableOptions): Table => {
  const chains = chainsOf(options)
  const body = [...tableSets.map((set) => `  ${setText(set)}`), ...chains.map(chainText)].join("\n")
  const definition = createHash("sha256").update(body).digest("hex").slice(0, 12)
  return {
    name: options.name,
    comment: `published ports, kept by portmapper; definition ${definition}${options.acceptMark === undefined ? "" : `; mark ${markText(options.acceptMark)}`}`,
    rules: chains.reduce((sum, { rules }) => sum + rules.filter(isStanding).length, 0),
    rulesOfServices: chains.reduce(
      (sum, { rules }) => sum + rules.filter((rule) => !isStanding(rule)).length,
      0
    ),
    text: (name, flags) => `table inet ${name}
delete table inet ${name}
table inet ${name} {
${flags === undefined ? "" : `  flags ${flags};\n`}${body}
}
`
  }
}

/** The comment of the rules that are there only while there are services. */
export const servicesComment = "services"

const isStanding = (rule: string): boolean => !rule.includes(`comment "${servicesComment}"`)

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
    { name: "services4", rules: serviceRules(4) },
    { name: "services6", rules: serviceRules(6) },
    { name: "published4", rules: [...publishedRules(4), `jump services4 comment "${servicesComment}"`] },
    { name: "published6", rules: [...publishedRules(6), `jump services6 comment "${servicesComment}"`] },
    { name: "published", rules: ["meta nfproto ipv4 jump published4", "meta nfproto ipv6 jump published6"] },
    {
      // The type stays `other` only where a redirection ended the chain. A packet of another type is never
      // forwarded.
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
      // Every incoming packet passes here, and nearly none matches: the first check is the cheapest one that
      // excludes it.
      rules: [
        "meta pkttype other goto redirected",
        ...(accepted === undefined ? [] : [`ct label ${redirectedLabel} ${accepted}`])
      ]
    },
    {
      // Before an Engine's own chain, which would masquerade the next packet of a refused flow as one of a new
      // flow.
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
      // A packet that another table redirected to a loopback address was not sent there by an outsider.
      name: "outsiders",
      rules: [
        "ct status dnat return",
        `ip daddr . ${port} @${setOf("loopback", "addr", 4).name} drop`,
        `ip6 daddr . ${port} @${setOf("loopback", "addr", 6).name} drop`
      ]
    },
    {
      // On the path to the host's own sockets, which redirected packets never take.
      name: "guard",
      hook: "filter hook input priority raw",
      rules: ['iif != "lo" ip daddr 127.0.0.0/8 goto outsiders', 'iif != "lo" ip6 daddr ::1 goto outsiders']
    }
  ]
}

const port = "meta l4proto . th dport"

/**
 * Per scope, the specific address first: drop sources outside the port's allow-list, if it has one, leave the
 * backend itself to the socket, drop what exceeds the port's rate, if it has one, then redirect.
 * A port without an allow-list and a rate costs two lookups in often empty sets, whatever the others have.
 */
const publishedRules = (family: Family): ReadonlyArray<string> => {
  const ip = family === 4 ? "ip" : "ip6"
  const loopback = family === 4 ? "127.0.0.0/8" : "::1"
  const forwarded = family === 4 ? "" : "ip6 saddr != fe80::/10 "
  const rules = (scope: Scope, key: string): ReadonlyArray<string> => {
    const name = (kind: "limited" | "allowed" | "denied" | "hairpin" | "rate" | "overrate" | "redirect") =>
      setOf(kind, scope, family).name
    return [
      `${key} @${name("limited")} ${key} . ${ip} saddr != @${name("allowed")} ${key} @${name("denied")} drop`,
      `${key} . ${ip} saddr @${name("hairpin")} return`,
      `${forwarded}${key} @${name("rate")} ${key} @${name("overrate")} drop`,
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

/**
 * Where a frontend is a service's, its backend is looked up by a slot too. The kernel scales a 32-bit number to the
 * slots: a random one, or the hash of the source, whose seed never changes, so that a client keeps its backend.
 */
const serviceRules = (family: Family): ReadonlyArray<string> => {
  const ip = family === 4 ? "ip" : "ip6"
  const forwarded = family === 4 ? "" : "ip6 saddr != fe80::/10 "
  return (["addr", "any"] as const).flatMap((scope) => {
    const frontend = scope === "addr" ? `${ip} daddr . ${port}` : port
    return serviceKinds.map(({ balance, size, kind }) => {
      const slot =
        balance === "random"
          ? `numgen random mod ${size}`
          : `jhash ${ip} saddr mod ${size} seed ${hex(sourceSeed)}`
      return `${forwarded}dnat ${ip} to ${frontend} . ${slot} map @${setOf(kind, scope, family).name}`
    })
  })
}

/** Matches connections that the table redirected; set if their later packets must be marked, too. */
const redirectedLabel = 113
/** Matches connections whose backend is reached through the interface that their first packet came in on. */
const hairpinLabel = 114

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`
}
