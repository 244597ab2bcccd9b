/**
 * Where other tables would drop published traffic: each drop with its table, its chain and its rule, and its
 * remedy.
 *
 * Reads the rules of every tool, and traces an ordinary client's packets of each mapping through them. What depends
 * on the client (its address, its rate) is reported as an exception, not as a drop. Docker's own chains drop what
 * the Engine did not open: a mapping that the Engine opened passes by the rule that the Engine added, and where
 * nothing is mapped yet the trace assumes that rule; a mapping without it is dropped, and reported.
 * Not checked: tables of family bridge, arp and netdev, and the verdicts of a program that a rule queues packets
 * for.
 */
import { Result } from "effect"
import { addressUnsafe, isLoopback, isUnspecified, parseAddress } from "../../src/protocol/Address.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { hasAddress } from "../../src/protocol/ListedText.ts"
import { protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { type Drop, findDrops } from "./Drops.ts"
import { type Check, ok, warn } from "./HostChecks.ts"
import { readRules } from "./HostRules.ts"
import { type Interfaces, neighbourOf, readInterfaces } from "./Interfaces.ts"
import type { Published } from "./PacketPath.ts"

interface DroppedTraffic {
  readonly drops: ReadonlyArray<Drop>
  readonly checks: ReadonlyArray<Check>
}

const name = "other rules"

/** `mappings` are those of a running plugin; without any, the check traces hypothetical ports. */
export const droppedTraffic = (mappings: ReadonlyArray<ListedMapping>): DroppedTraffic => {
  const rules = readRules()
  if (typeof rules === "string")
    return { drops: [], checks: [warn(name, `can't be read: ${rules}`, "run as root")] }
  const interfaces = readInterfaces()
  const live = mappings.flatMap((mapping) => publishedOf(mapping, interfaces))
  const looked = live.length > 0 ? [...live, ...neighbours(live, interfaces)] : imagined(interfaces)
  const drops = findDrops(rules, looked)
  const tables = `${rules.tables.length} tables of others`
  return {
    drops,
    checks:
      drops.length === 0
        ? [ok(name, `nothing in ${tables} drops published traffic`)]
        : drops.map((drop) => warn(name, dropText(drop, live.length > 0), drop.remedy))
  }
}

const dropText = (
  { table, base, chain, hook, rule, traffic, neighbour, ports, exceptions }: Drop,
  live: boolean
): string => {
  const [first, ...more] = ports
  const which = more.length === 0 ? first : `${first} and ${more.length} more`
  const what = neighbour ? `${traffic} traffic between bridges` : `${traffic} traffic`
  const drops = live ? `drops ${what} for ${which}` : `would drop ${what}`
  const where = chain === base ? `chain ${chain}` : `chain ${chain} (from ${base})`
  const unless = exceptions.length === 0 ? "" : `; exceptions: ${exceptions.join("; ")}`
  return `table ${table}, ${where}, at ${hook}, ${drops}: ${rule}${unless}`
}

/** Nothing of a mapping that leads nowhere: it is not served, or its container is asleep and has no address. */
export const publishedOf = (
  mapping: ListedMapping,
  interfaces: Omit<Interfaces, "bridges">
): ReadonlyArray<Published> => {
  if (!hasAddress(mapping)) return []
  const protocol = protocolOfNumber(mapping.protocol)
  const host = parseAddress(mapping.frontendIp)
  const address = parseAddress(mapping.backendIp)
  if (protocol === undefined || Result.isFailure(host) || Result.isFailure(address)) return []
  if (mapping.state === "conflicted" || mapping.state === "standby" || isLoopback(host.success)) return []
  const traffic =
    mapping.mode === "routed"
      ? "routed"
      : mapping.mode === "proxy" || host.success.family !== address.success.family
        ? "relayed"
        : "redirected"
  const backend = { address: address.success, port: mapping.backendPort }
  const asked = { protocol, host: host.success, port: mapping.frontendPort, backend, traffic } as const
  return [located(asked, interfaces.towards(backend.address), interfaces, false)]
}

/** For each bridge and family one redirected and one relayed port; on `docker0` if there is no bridge yet. */
const imagined = (interfaces: Interfaces): ReadonlyArray<Published> =>
  (["0.0.0.0", "::"] as const).flatMap((any) => {
    const host = addressUnsafe(any)
    const bridges = interfaces.bridges.filter((bridge) => bridge !== interfaces.outside(host, bridge))
    return (bridges.length === 0 ? ["docker0"] : bridges).flatMap((inside) => {
      const gateway = interfaces.addressOf(inside, host.family)
      const made = addressUnsafe(any === "::" ? "fd00::250" : "172.17.0.250")
      const backend = { address: gateway === undefined ? made : neighbourOf(gateway), port: 80 }
      return (["redirected", "relayed"] as const).map((traffic) =>
        located({ protocol: "tcp", host, port: 8080, backend, traffic }, inside, interfaces, true)
      )
    })
  })

/**
 * Clients on each other bridge, for one redirected port of each bridge and family: isolation rules match
 * interfaces.
 */
const neighbours = (all: ReadonlyArray<Published>, { bridges }: Interfaces): ReadonlyArray<Published> => {
  const redirected = all.filter(({ traffic }) => traffic === "redirected")
  const each = new Map(redirected.map((one) => [`${one.inside} ${one.backend.address.family}`, one]))
  return [...each.values()].flatMap((one) =>
    bridges
      .filter((bridge) => bridge !== one.inside && bridge !== one.outside)
      .map((outside) => ({ ...one, outside, neighbour: true }))
  )
}

const located = (
  asked: Pick<Published, "protocol" | "host" | "port" | "backend" | "traffic">,
  towards: string | undefined,
  interfaces: Omit<Interfaces, "bridges">,
  imagination: boolean
): Published => {
  const inside = towards ?? "docker0"
  const outside = interfaces.outside(asked.host, inside)
  const spokenTo = isUnspecified(asked.host) ? interfaces.addressOf(outside, asked.host.family) : asked.host
  return { ...asked, spokenTo: spokenTo?.octets, outside, inside, neighbour: false, imagined: imagination }
}
