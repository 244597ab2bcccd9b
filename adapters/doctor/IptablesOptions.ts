/**
 * Translates the options of an iptables rule as `iptables-save` prints them (iptables-extensions(8)) to equivalent
 * statements of nft.
 */
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { type Match, not } from "./Match.ts"
import type { Json } from "./Tables.ts"

/**
 * The field that an option tests and the value that it expects; or an assumed match, where a packet does not
 * decide.
 */
type Meaning = readonly [left: Json, right: unknown] | Match

interface Option {
  /** The number of its values. */
  readonly values: number
  /** The meaning without a preceding `!`, which the caller applies. */
  readonly meaning: (values: ReadonlyArray<string>, family: "ip" | "ip6") => Meaning
}

const sure = (values: number, match: Match): Option => ({ values, meaning: () => match })

const one = (meaning: (text: string, family: "ip" | "ip6") => Meaning): Option => ({
  values: 1,
  meaning: ([text = ""], family) => meaning(text, family)
})

const meta = (key: string): Json => ({ meta: { key } })
const ct = (key: string): Json => ({ ct: { key, dir: "original" } })
const address = (field: "saddr" | "daddr") =>
  one((text, protocol) => [{ payload: { protocol, field } }, text])
const addressRange = (field: "saddr" | "daddr") =>
  one((text, protocol) => {
    const [first, last = first] = text.split("-")
    return [{ payload: { protocol, field } }, { range: [first, last] }]
  })
const interfaceName = (key: string) => one((pattern) => [meta(key), pattern])
const th = (field: "sport" | "dport"): Json => ({ payload: { protocol: "th", field } })

/** `80`, `80:90`, or several of them. */
const ports = (left: Json) =>
  one((text) => {
    const ranges = text.split(",").map((part) => {
      const [first = "", last = first] = part.split(":")
      return { range: [Number(first || 0), Number(last || 65_535)] }
    })
    return [left, { set: ranges }]
  })

const words = (left: Json) => one((text) => [left, { set: text.toLowerCase().split(",") }])

const mark = (left: Json) =>
  one((text) => {
    const [value = 0, mask = 0xffff_ffff] = text.split("/").map(Number)
    return [{ "&": [left, mask] }, value >>> 0]
  })

const protocol = (left: Json) =>
  one((text) => (text === "all" ? "yes" : [left, protocolOfNumber(Number(text)) ?? text]))

const flags: Json = { payload: { protocol: "th", field: "flags" } }
const synAmong = (mask: string, set: string): Meaning => [
  mask === "ALL" ? flags : { "&": [flags, mask.toLowerCase().split(",")] },
  set === "NONE" ? [] : set.toLowerCase().split(",")
]

/** By match and option; the first ones need no match. */
const options: Readonly<Record<string, Option>> = {
  "-p": protocol(meta("l4proto")),
  "-s": address("saddr"),
  "-d": address("daddr"),
  "-i": interfaceName("iifname"),
  "-o": interfaceName("oifname"),
  "-f": sure(0, "no"),
  "iprange --src-range": addressRange("saddr"),
  "iprange --dst-range": addressRange("daddr"),
  "tcp --tcp-flags": { values: 2, meaning: ([mask = "", set = ""]) => synAmong(mask, set) },
  "tcp --syn": { values: 0, meaning: () => synAmong("FIN,SYN,RST,ACK", "SYN") },
  ...Object.fromEntries(
    ["tcp", "udp", "sctp"].flatMap((match) => [
      [`${match} --dport`, ports(th("dport"))],
      [`${match} --sport`, ports(th("sport"))]
    ])
  ),
  "multiport --dports": ports(th("dport")),
  "multiport --sports": ports(th("sport")),
  "multiport --ports": ports({ either: [th("sport"), th("dport")] }),
  "conntrack --ctstate": words({ either: [ct("state"), ct("status")] }),
  "state --state": words(ct("state")),
  "conntrack --ctorigdst": one((text, family) => [ct(`${family} daddr`), text]),
  "conntrack --ctorigdstport": ports(ct("proto-dst")),
  "conntrack --ctdir": words(ct("direction")),
  "conntrack --ctproto": protocol(ct("protocol")),
  "mark --mark": mark(meta("mark")),
  "connmark --mark": mark(ct("mark")),
  "addrtype --dst-type": words({ fib: { result: "type", flags: ["daddr"] } }),
  "addrtype --src-type": one((text) => (text.split(",").includes("UNICAST") ? "yes" : "no")),
  "pkttype --pkt-type": words(meta("pkttype")),
  "comment --comment": sure(1, "yes"),
  "limit --limit": sure(1, "mostly"),
  "limit --limit-burst": sure(1, "yes"),
  "hashlimit --hashlimit-upto": sure(1, "mostly"),
  "hashlimit --hashlimit-above": sure(1, "rarely"),
  "connlimit --connlimit-upto": sure(1, "mostly"),
  "connlimit --connlimit-above": sure(1, "rarely"),
  "recent --set": sure(0, "yes"),
  "recent --rcheck": sure(0, "rarely"),
  "recent --update": sure(0, "rarely"),
  "set --match-set": sure(2, "rarely"),
  "physdev --physdev-is-bridged": sure(0, "no"),
  "physdev --physdev-is-in": sure(0, "no"),
  "physdev --physdev-is-out": sure(0, "no"),
  // Assumes that the route back to the source uses the interface that its packets came in on.
  "rpfilter --invert": sure(0, "rarely"),
  "rpfilter --loose": sure(0, "yes"),
  "rpfilter --validmark": sure(0, "yes"),
  "rpfilter --accept-local": sure(0, "yes")
}

/**
 * One option of a rule from `at` on, which may be its `!`, and the index of the next one. `match` is the last `-m`.
 */
export const readOption = (
  all: ReadonlyArray<string>,
  at: number,
  match: string,
  family: "ip" | "ip6"
): { readonly statement: Json; readonly next: number } => {
  const negated = all[at] === "!"
  const name = all[at + (negated ? 1 : 0)] ?? ""
  const first = at + (negated ? 2 : 1)
  const known = options[name] ?? options[`${match} ${name}`]
  if (known === undefined) {
    let next = first
    while (next < all.length && !/^(!|-[a-z]|-[A-Z]$|--)/.test(all[next] ?? "")) next++
    return { statement: { assumed: qualifying.test(name) ? "yes" : "unknown" }, next }
  }
  const next = first + known.values
  const meaning = known.meaning(all.slice(first, next), family)
  if (typeof meaning === "string") return { statement: { assumed: negated ? not(meaning) : meaning }, next }
  const [left, right] = meaning
  return { statement: { match: { op: negated ? "!=" : "==", left, right } }, next }
}

/** Options that modify another option. */
const qualifying =
  /^--(hashlimit-(burst|mode|name|htable|srcmask|dstmask)|connlimit-(mask|saddr|daddr)|name|mask|rsource|rdest|seconds|hitcount|reap|rttl|limit-iface)/
