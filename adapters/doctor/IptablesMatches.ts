/** The matches of an iptables rule as `iptables-save` prints them (iptables-extensions(8)). */
import { protocolNumber, protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { type Answer, is, not, some } from "./Match.ts"
import { networkBounds } from "./NftFields.ts"
import { isInterface, isPlaceWithin, isPortWithin, type Packet, type Place, type Port } from "./Packet.ts"

/** Asks an option of a match, with its values. Negated ones are asked without their `!`. */
type Ask = (values: ReadonlyArray<string>) => (packet: Packet) => Answer

interface Option {
  /** How many values it takes. */
  readonly values: number
  readonly ask: Ask
}

const always: Ask = () => () => "yes"
const ordinary: Ask = () => () => "mostly"
const special: Ask = () => () => "rarely"
const unsaid: Ask = () => () => "unknown"

const address =
  (place: (packet: Packet) => Place): Ask =>
  ([text = ""]) => {
    const bounds = networkBounds(text)
    return (packet) =>
      bounds === undefined
        ? "unknown"
        : isPlaceWithin(place(packet), packet.family, bounds.first, bounds.last)
  }

const range =
  (place: (packet: Packet) => Place): Ask =>
  ([text = ""]) => {
    const [first, last = first] = text.split("-").map((end) => networkBounds(end ?? ""))
    return (packet) =>
      first === undefined || last === undefined
        ? "unknown"
        : isPlaceWithin(place(packet), packet.family, first.first, last.last)
  }

/** `80`, `80:90`, or several of them. */
const ports =
  (...sides: ReadonlyArray<(packet: Packet) => Port>): Ask =>
  ([text = ""]) => {
    const ranges = text.split(",").map((part) => {
      const [first = "", last = first] = part.split(":")
      return [Number(first === "" ? 0 : first), Number(last === "" ? 65_535 : last)] as const
    })
    return (packet) =>
      some(sides.flatMap((side) => ranges.map(([first, last]) => isPortWithin(side(packet), first, last))))
  }

const states =
  (of: (packet: Packet) => ReadonlyArray<string>): Ask =>
  ([text = ""]) => {
    const wanted = text.split(",")
    return (packet) => is(of(packet).some((state) => wanted.includes(state)))
  }

const mark =
  (of: (packet: Packet) => number | undefined): Ask =>
  ([text = ""]) => {
    const [value = 0, mask = 0xffff_ffff] = text.split("/").map(Number)
    return (packet) => {
      const marked = of(packet)
      return marked === undefined ? "unknown" : is((marked & mask) >>> 0 === value >>> 0)
    }
  }

const source = ({ source: place }: Packet) => place
const destination = ({ destination: place }: Packet) => place
const sourcePort = ({ sourcePort: port }: Packet) => port
const destinationPort = ({ destinationPort: port }: Packet) => port
const one = (ask: Ask): Option => ({ values: 1, ask })
const none = (ask: Ask): Option => ({ values: 0, ask })

/** By match and option; the first ones need no match. */
const options: Readonly<Record<string, Option>> = {
  "-p": one(([text = ""]) => {
    const name = protocolOfNumber(Number(text)) ?? text
    return ({ protocol }) =>
      is(name === "all" || name === "0" || name === protocol || text === `${protocolNumber[protocol]}`)
  }),
  "-s": one(address(source)),
  "-d": one(address(destination)),
  "-i": one(
    ([pattern = ""]) =>
      ({ iif }) =>
        isInterface(iif, pattern)
  ),
  "-o": one(
    ([pattern = ""]) =>
      ({ oif }) =>
        isInterface(oif, pattern)
  ),
  "-f": none(() => () => "no"),
  "iprange --src-range": one(range(source)),
  "iprange --dst-range": one(range(destination)),
  "tcp --tcp-flags": {
    values: 2,
    ask: ([mask = "", set = ""]) => {
      const looked = mask.split(",")
      const wanted = set === "NONE" ? [] : set.split(",")
      return ({ state }) => {
        const flags = (state === "new" ? ["SYN"] : ["ACK"]).filter(
          (flag) => looked.includes(flag) || looked.includes("ALL")
        )
        return is(flags.length === wanted.length && flags.every((flag) => wanted.includes(flag)))
      }
    }
  },
  "tcp --syn": none(
    () =>
      ({ state }) =>
        is(state === "new")
  ),
  "multiport --dports": one(ports(destinationPort)),
  "multiport --sports": one(ports(sourcePort)),
  "multiport --ports": one(ports(sourcePort, destinationPort)),
  "conntrack --ctstate": one(
    states(({ state, redirected }) => [state.toUpperCase(), ...(redirected ? ["DNAT"] : [])])
  ),
  "state --state": one(states(({ state }) => [state.toUpperCase()])),
  "conntrack --ctorigdst": one(address(({ original }) => original.destination)),
  "conntrack --ctorigdstport": one(ports(({ original }) => original.port)),
  "conntrack --ctdir": one(
    ([text = ""]) =>
      ({ direction }) =>
        is(direction.toUpperCase() === text)
  ),
  "conntrack --ctproto": one(
    ([text = ""]) =>
      ({ protocol }) =>
        is(protocol === (protocolOfNumber(Number(text)) ?? text))
  ),
  "mark --mark": one(mark(({ mark: own }) => own)),
  "connmark --mark": one(mark(() => 0)),
  "addrtype --dst-type": one(states(({ toHost }) => [toHost ? "LOCAL" : "UNICAST"])),
  "addrtype --src-type": one(states(() => ["UNICAST"])),
  "pkttype --pkt-type": one(states(() => ["unicast", "host"])),
  "comment --comment": one(always),
  "limit --limit": one(ordinary),
  "limit --limit-burst": one(always),
  "hashlimit --hashlimit-upto": one(ordinary),
  "hashlimit --hashlimit-above": one(special),
  "connlimit --connlimit-upto": one(ordinary),
  "connlimit --connlimit-above": one(special),
  "recent --set": none(always),
  "recent --rcheck": none(special),
  "recent --update": none(special),
  "set --match-set": { values: 2, ask: special },
  "physdev --physdev-is-bridged": none(() => () => "no"),
  "physdev --physdev-is-in": none(() => () => "no"),
  "physdev --physdev-is-out": none(() => () => "no"),
  // Whether the way back to the source is the one it came by.
  "rpfilter --invert": none(() => () => "rarely"),
  "rpfilter --loose": none(always),
  "rpfilter --validmark": none(always),
  "rpfilter --accept-local": none(always)
}

for (const match of ["tcp", "udp", "sctp"]) {
  Object.assign(options, {
    [`${match} --dport`]: one(ports(destinationPort)),
    [`${match} --sport`]: one(ports(sourcePort))
  })
}

export interface Asked {
  readonly test: (packet: Packet) => Answer
  /** How many words were read. */
  readonly read: number
}

/** One option of a rule from `words[at]` on, which may be its `!`. `match` is what `-m` said last. */
export const readOption = (words: ReadonlyArray<string>, at: number, match: string): Asked => {
  const negated = words[at] === "!"
  const name = words[at + (negated ? 1 : 0)] ?? ""
  const first = at + (negated ? 2 : 1)
  const known = options[name] ?? options[`${match} ${name}`]
  if (known === undefined) {
    let last = first
    while (last < words.length && !/^(!|-[a-z]|-[A-Z]$|--)/.test(words[last] ?? "")) last++
    return { test: qualifying.test(name) ? () => "yes" : unsaid([]), read: last - at }
  }
  const test = known.ask(words.slice(first, first + known.values))
  return { test: negated ? (packet) => not(test(packet)) : test, read: first + known.values - at }
}

/** Options that say how another one is to be understood. */
const qualifying =
  /^--(hashlimit-(burst|mode|name|htable|srcmask|dstmask)|connlimit-(mask|saddr|daddr)|name|mask|rsource|rdest|seconds|hitcount|reap|rttl|limit-iface)/
