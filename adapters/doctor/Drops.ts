/** Which rules of which tables drop the packets of published ports. Pure: tables were read before. */
import { frontendText } from "../../src/protocol/PortBinding.ts"
import { walk } from "./ChainVerdict.ts"
import type { Hook, Packet } from "./Packet.ts"
import { type Leg, legsOf, type Published } from "./PacketPath.ts"
import { remedyOf } from "./Remedies.ts"
import { type Chain, type Table, tableText } from "./Tables.ts"

export interface Drop {
  /** `inet filter (nft)`, `ip filter (iptables-legacy)`. */
  readonly table: string
  /** The chain that the kernel calls, and the one in which the rule stands, which it may have jumped to. */
  readonly hook: Hook
  readonly base: string
  readonly chain: string
  /** `policy drop` where no rule decides. */
  readonly rule: string
  readonly traffic: Published["traffic"]
  /** The ports it drops the packets of, as `0.0.0.0:8080/tcp`. */
  readonly ports: ReadonlyArray<string>
  /** Rules that let some packets pass, or drop them, by what is special of them. */
  readonly exceptions: ReadonlyArray<string>
  readonly remedy: string
}

export interface Rules {
  readonly tables: ReadonlyArray<Table>
  /** The mark on packets that our table redirected; 0 where it sets none. */
  readonly acceptMark: number
}

export const findDrops = (
  { tables, acceptMark }: Rules,
  published: ReadonlyArray<Published>
): ReadonlyArray<Drop> => {
  const found = new Map<string, Drop>()
  for (const one of published)
    for (const way of legsOf(one, acceptMark))
      for (const drop of dropsOn(way, tables, one)) {
        const key = `${drop.table} ${drop.hook} ${drop.chain} ${drop.rule} ${drop.traffic}`
        const known = found.get(key)
        const ports = [...new Set([...(known?.ports ?? []), ...drop.ports])]
        found.set(key, { ...(known ?? drop), ports })
      }
  return [...found.values()]
}

/** One mark goes along with a packet, through every chain on its way. A chain is asked though one before it dropped. */
const dropsOn = (way: ReadonlyArray<Leg>, tables: ReadonlyArray<Table>, published: Published) => {
  const drops: Array<Drop> = []
  let mark: Packet["mark"] = 0
  for (const { hook, from, to, packet } of way) {
    if (packet.mark !== 0) mark = packet.mark
    for (const { table, chain } of basesOf(tables, packet, hook, from, to)) {
      const passage = walk(table, chain, { ...packet, mark }, (name) => opened(table, name, published))
      mark = passage.mark
      if (passage.verdict !== "drop") continue
      drops.push({
        table: tableText(table),
        hook,
        base: chain.name,
        chain: passage.chain,
        rule: passage.rule,
        traffic: published.traffic,
        ports: [frontendText(published.protocol, published.host, published.port)],
        exceptions: [...new Set(passage.exceptions)],
        remedy: remedyOf(table, chain.name, hook, packet, published)
      })
    }
  }
  return drops
}

const basesOf = (tables: ReadonlyArray<Table>, packet: Packet, hook: Hook, from: number, to: number) => {
  const family = packet.family === 4 ? "ip" : "ip6"
  const found: Array<{ readonly table: Table; readonly chain: Chain; readonly priority: number }> = []
  for (const table of tables) {
    if (table.family !== "inet" && table.family !== family) continue
    for (const chain of table.chains.values()) {
      const priority = chain.base?.priority ?? 0
      if (chain.base?.hook === hook && priority >= from && priority < to)
        found.push({ table, chain, priority })
    }
  }
  return found.sort((a, b) => a.priority - b.priority)
}

/**
 * For each port that a binding lets forward, the Engine puts a rule into its own chain, which ends in dropping. What is
 * imagined has no such rule yet; a mapping that lacks it is dropped indeed.
 */
const opened = (table: Table, chain: string, { imagined, traffic }: Published): "accept" | undefined => {
  if (!imagined || traffic === "relayed") return undefined
  const ofEngine =
    table.tool === "nft"
      ? table.name === "docker-bridges" && chain.startsWith("filter-forward-in__")
      : table.name === "filter" && chain === "DOCKER"
  return ofEngine ? "accept" : undefined
}
