/** What to do about a rule that drops published traffic, in the words of whoever made it. */

import type { Hook, Packet } from "./Packet.ts"
import type { Published } from "./PacketPath.ts"
import type { Table } from "./Tables.ts"

export const remedyOf = (
  table: Table,
  base: string,
  hook: Hook,
  packet: Packet,
  published: Published
): string => {
  const { protocol, port, backend, inside } = published
  const names = [...table.chains.keys()]
  const toPort = hook === "input" && packet.state === "new"
  const forwards = hook === "forward" || hook === "postrouting"
  if (names.some((name) => name.startsWith("ufw-"))) {
    if (toPort) return `ufw allow ${port}/${protocol}`
    if (forwards) return `ufw route allow proto ${protocol} to ${backend.address.text} port ${backend.port}`
  }
  if (table.tool === "nft" && table.name === "firewalld") {
    if (toPort) return `firewall-cmd --permanent --add-port=${port}/${protocol} && firewall-cmd --reload`
    if (forwards) return `firewall-cmd: a policy with target ACCEPT from zone ANY to the zone of ${inside}`
  }
  return table.tool === "nft"
    ? `nft insert rule ${table.family} ${table.name} ${base} ${nftMatch(packet, published)} accept`
    : iptables(table, names, base, packet, published)
}

const nftMatch = (packet: Packet, { protocol, port, backend }: Published): string => {
  if (packet.redirected) return "ct status dnat"
  if (packet.state === "established") return "ct state established"
  if (packet.toHost) return `${protocol} dport ${port}`
  return `${packet.family === 4 ? "ip" : "ip6"} daddr ${backend.address.text} ${protocol} dport ${backend.port}`
}

const iptables = (
  { tool, family, name }: Table,
  chains: ReadonlyArray<string>,
  base: string,
  packet: Packet,
  { protocol, port, backend }: Published
): string => {
  const command = `${family === "ip6" ? "ip6tables" : "iptables"}${tool === "iptables-legacy" ? "-legacy" : "-nft"}`
  const table = name === "filter" ? "" : ` -t ${name}`
  const chain = base === "FORWARD" && chains.includes("DOCKER-USER") ? "DOCKER-USER" : base
  const match = () => {
    if (packet.redirected) return "-m conntrack --ctstate DNAT"
    if (packet.state === "established") return "-m conntrack --ctstate ESTABLISHED"
    if (packet.toHost) return `-p ${protocol} --dport ${port}`
    return `-d ${backend.address.text} -p ${protocol} --dport ${backend.port}`
  }
  return `${command}${table} -I ${chain} ${match()} -j ACCEPT`
}
