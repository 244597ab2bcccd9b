/** Ports to search drops for, and the drops found as lines of text. */
import { type Drop, findDrops } from "../../adapters/doctor/Drops.ts"
import { parseIptables } from "../../adapters/doctor/Iptables.ts"
import type { Published } from "../../adapters/doctor/PacketPath.ts"
import type { Table } from "../../adapters/doctor/Tables.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"

/** TCP port 8080 of 192.0.2.1, by eth0, for port 80 of 172.17.0.2 behind docker0. */
export const published = (more: Partial<Published> = {}): Published => ({
  protocol: "tcp",
  host: addressUnsafe("0.0.0.0"),
  port: 8080,
  backend: { address: addressUnsafe("172.17.0.2"), port: 80 },
  traffic: "redirected",
  spokenTo: addressUnsafe("192.0.2.1").octets,
  outside: "eth0",
  inside: "docker0",
  neighbour: false,
  imagined: false,
  ...more
})

/** `forward FORWARD: -A FORWARD -j DROP`: the hook, the chain and the rule; then the exemptions. */
export const dropText = ({ hook, chain, rule, exceptions }: Drop): string =>
  `${hook} ${chain}: ${rule}${exceptions.map((exception) => ` | ${exception}`).join("")}`

export const dropsIn = (
  tables: ReadonlyArray<Table>,
  more: Partial<Published> = {},
  acceptMark = 0
): ReadonlyArray<string> => findDrops({ tables, acceptMark }, [published(more)]).map(dropText)

/** A filter table of iptables from its rules, with the chains that they name; `-P` sets a policy. */
export const filter = (rules: string): ReadonlyArray<Table> => {
  const lines = rules
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "")
  const policies = new Map([
    ["INPUT", "ACCEPT"],
    ["FORWARD", "ACCEPT"],
    ["OUTPUT", "ACCEPT"]
  ])
  for (const line of lines) {
    const [, chain, policy] = /^-P (\S+) (\S+)/.exec(line) ?? []
    if (chain !== undefined && policy !== undefined) policies.set(chain, policy)
    const [, own] = /^-[AN] (\S+)/.exec(line) ?? []
    if (own !== undefined && !policies.has(own)) policies.set(own, "-")
  }
  const text = [
    "*filter",
    ...[...policies].map(([chain, policy]) => `:${chain} ${policy} [0:0]`),
    ...lines.filter((line) => line.startsWith("-A")),
    "COMMIT"
  ]
  return parseIptables(text.join("\n"), "iptables-nft", "ip")
}
