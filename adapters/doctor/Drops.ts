/** Which rules of which tables drop the packets of published ports. Pure: the caller has read the tables. */
import { frontendText } from "../../src/protocol/PortBinding.ts"
import { chainVerdict } from "./ChainVerdict.ts"
import type { Hook, Packet } from "./Packet.ts"
import { type Hop, type PacketPath, type Published, pathsOf } from "./PacketPath.ts"
import { remedyOf } from "./Remedies.ts"
import { type Chain, type Table, tableText } from "./Tables.ts"

export interface Drop {
  /** `inet filter (nft)`, `ip filter (iptables-legacy)`. */
  readonly table: string
  /** The base chain, and the chain with the rule, which the base chain may have jumped to. */
  readonly hook: Hook
  readonly base: string
  readonly chain: string
  /** `policy drop` if no rule decides. */
  readonly rule: string
  readonly traffic: Published["traffic"]
  /** Whether it drops the traffic of containers on another bridge. */
  readonly neighbour: boolean
  /** The ports whose packets it drops, as `0.0.0.0:8080/tcp`. */
  readonly ports: ReadonlyArray<string>
  /** Rules that pass or drop only some of the packets, by their special properties. */
  readonly exceptions: ReadonlyArray<string>
  readonly remedy: string
}

export interface Rules {
  readonly tables: ReadonlyArray<Table>
  /** The mark on packets that our table redirected; 0 if it sets none. */
  readonly acceptMark: number
}

export const findDrops = (
  { tables, acceptMark }: Rules,
  published: ReadonlyArray<Published>
): ReadonlyArray<Drop> => {
  const found = new Map<string, Drop>()
  for (const one of published)
    for (const path of pathsOf(one, acceptMark))
      for (const drop of dropsOn(path, tables, one)) {
        const key = `${drop.table} ${drop.hook} ${drop.chain} ${drop.rule} ${drop.traffic} ${drop.neighbour}`
        const known = found.get(key)
        const ports = [...new Set([...(known?.ports ?? []), ...drop.ports])]
        found.set(key, { ...(known ?? drop), ports })
      }
  return [...found.values()]
}

/** A packet keeps its mark through every chain on its path. Chains after a drop are traced as well. */
const dropsOn = (path: PacketPath, tables: ReadonlyArray<Table>, published: Published) => {
  const drops: Array<Drop> = []
  let mark: Packet["mark"] = 0
  for (const hop of path) {
    const { hook, packet } = hop
    if (packet.mark !== 0) mark = packet.mark
    for (const { table, chain } of basesOf(tables, hop)) {
      const found = chainVerdict(table, chain, { ...packet, mark }, (name) =>
        isOpened(table, name, published)
      )
      mark = found.mark
      if (found.verdict !== "drop") continue
      drops.push({
        table: tableText(table),
        hook,
        base: chain.name,
        chain: found.chain,
        rule: found.rule,
        traffic: published.traffic,
        neighbour: published.neighbour,
        ports: [frontendText(published)],
        exceptions: [...new Set(found.exceptions)],
        remedy: remedyOf(table, chain.name, hop, published)
      })
    }
  }
  return drops
}

/** The base chains at a hop, in their order. */
const basesOf = (
  tables: ReadonlyArray<Table>,
  { hook, packet, from = -Infinity, to = Infinity }: Hop
): ReadonlyArray<{ readonly table: Table; readonly chain: Chain }> => {
  const family = packet.family === 4 ? "ip" : "ip6"
  const priority = ({ base }: Chain) => base?.priority ?? 0
  return tables
    .filter((table) => table.family === "inet" || table.family === family)
    .flatMap((table) => [...table.chains.values()].map((chain) => ({ table, chain })))
    .filter(({ chain }) => chain.base?.hook === hook && priority(chain) >= from && priority(chain) < to)
    .sort((a, b) => priority(a.chain) - priority(b.chain))
}

/**
 * For each port of a binding that allows forwarding, the Engine adds a rule to its own chain, which ends in a drop.
 * A hypothetical mapping has no such rule yet; the packets of a real mapping without one are dropped.
 */
const isOpened = ({ tool, name }: Table, chain: string, { imagined, traffic }: Published): boolean =>
  imagined &&
  traffic !== "relayed" &&
  (tool === "nft"
    ? name === "docker-bridges" && chain.startsWith("filter-forward-in__")
    : name === "filter" && chain === "DOCKER")
