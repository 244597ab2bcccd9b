/** The hosts that the harness runs on: the mapper plans differently on each. */
import type { ModelHost } from "../../src/testing/index.ts"

const ephemeral = { range: { first: 40000, last: 40007 }, reserved: [{ first: 40003, last: 40004 }] }
const nat = {
  defaultMode: "nat",
  natUnavailable: undefined,
  marksAccepted: false,
  ipv6: true,
  relayed: ["tcp", "udp"]
} as const

export const hosts: Readonly<Record<string, ModelHost>> = {
  nat: { ephemeral, capabilities: nat },
  "nat without a relay": { ephemeral, capabilities: { ...nat, relayed: [] } },
  "nat with marks": { ephemeral, capabilities: { ...nat, marksAccepted: true } },
  "nat without IPv6": { ephemeral, capabilities: { ...nat, ipv6: false } },
  engine: { ephemeral, capabilities: { ...nat, defaultMode: "engine" } },
  "proxy without a kernel table": {
    ephemeral,
    capabilities: { ...nat, defaultMode: "proxy", natUnavailable: "nft was not found" }
  },
  routed: { ephemeral, capabilities: { ...nat, defaultMode: "routed" } }
}
