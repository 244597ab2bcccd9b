/** How to fix a rule that drops published traffic, as a command of the tool that made it. */
import type { Packet } from "./Packet.ts"
import type { Hop, Published } from "./PacketPath.ts"
import type { Table } from "./Tables.ts"

export const remedyOf = (table: Table, base: string, { hook, packet }: Hop, published: Published): string => {
  const { protocol, port, backend, inside } = published
  const names = [...table.chains.keys()]
  const toPort = hook === "input" && packet.state === "new"
  const forwards = hook === "forward" || hook === "postrouting"
  if (names.some((name) => name.startsWith("ufw-"))) {
    if (toPort) return `ufw allow ${port}/${protocol}`
    if (forwards) return `ufw route allow proto ${protocol} to ${backend.address.text} port ${backend.port}`
  }
  const { tool, family, name } = table
  if (tool === "nft") {
    if (name === "firewalld" && toPort)
      return `firewall-cmd --permanent --add-port=${port}/${protocol} && firewall-cmd --reload`
    if (name === "firewalld" && forwards)
      return `firewall-cmd: a policy with target ACCEPT from zone ANY to the zone of ${inside}`
    return `nft insert rule ${family} ${name} ${base} ${nftMatch(packet, published)} accept`
  }
  const command = `${family === "ip6" ? "ip6tables" : "iptables"}${tool === "iptables-legacy" ? "-legacy" : "-nft"}`
  const option = name === "filter" ? "" : ` -t ${name}`
  const chain = base === "FORWARD" && names.includes("DOCKER-USER") ? "DOCKER-USER" : base
  return `${command}${option} -I ${chain} ${iptablesMatch(packet, published)} -j ACCEPT`
}

const nftMatch = (packet: Packet, { protocol, port, backend }: Published): string => {
  if (packet.redirected) return "ct status dnat"
  if (packet.state === "established") return "ct state established"
  if (packet.toHost) return `${protocol} dport ${port}`
  return `${packet.family === 4 ? "ip" : "ip6"} daddr ${backend.address.text} ${protocol} dport ${backend.port}`
}

const iptablesMatch = (packet: Packet, { protocol, port, backend }: Published): string => {
  if (packet.redirected) return "-m conntrack --ctstate DNAT"
  if (packet.state === "established") return "-m conntrack --ctstate ESTABLISHED"
  if (packet.toHost) return `-p ${protocol} --dport ${port}`
  return `-d ${backend.address.text} -p ${protocol} --dport ${backend.port}`
}
