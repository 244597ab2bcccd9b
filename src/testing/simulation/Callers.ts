/** What callers ask of the hosts of a simulated cluster: few ports, so that they meet. */
import { addressUnsafe } from "../../protocol/Address.ts"
import type { Group, PortRequest, Release } from "../../protocol/PortBinding.ts"
import { frontendText, rangeFrontendText } from "../../protocol/PortBinding.ts"
import type { Protocol } from "../../protocol/Protocol.ts"
import type { Random } from "../Random.ts"
import type { Published } from "./Oracle.ts"

/** Of two cells, and one among the ephemeral ports. */
const exactPorts = [8060, 8061, 8062, 8064, 8065, 40000] as const

/** `number` makes the backend, which tells this mapping from all others. `port`: the exact one, where it is given. */
export const groupFor = (random: Random, number: number, port?: number): Group => {
  const backend = { address: addressUnsafe(`172.17.${number >> 8}.${number & 255}`), port: 80 }
  const host = addressUnsafe(random.pick(["0.0.0.0", "0.0.0.0", "10.0.0.1"]))
  const protocols = random.pick<[Protocol[], Protocol[], Protocol[]]>([["tcp"], ["udp"], ["tcp", "udp"]])
  const share = random.chance(0.1) ? { "portmapper.share": "web", "portmapper.mode": "proxy" } : {}
  const mode = random.chance(0.1) ? { "portmapper.mode": "proxy" } : {}
  return {
    entries: protocols.map((protocol) => ({ protocol, host, requestedAddress: host.text, backend })),
    ports: port === undefined ? portsFor(random) : { _tag: "Exact", port },
    labels: new Map(Object.entries({ ...mode, ...share }))
  }
}

const portsFor = (random: Random): PortRequest => {
  if (random.chance(0.3)) return { _tag: "Ephemeral" }
  if (random.chance(0.2)) return { _tag: "Range", first: 8062, last: 8065 }
  return { _tag: "Exact", port: random.pick(exactPorts) }
}

export const groupText = ({ entries, ports, labels }: Group): string => {
  const [first] = entries
  if (first === undefined) return "nothing"
  const { host } = first
  const protocols = entries.map(({ protocol }) => protocol).join("+") as Protocol
  const text =
    ports._tag === "Range"
      ? rangeFrontendText(protocols, host, ports)
      : frontendText({ protocol: protocols, host, port: ports._tag === "Exact" ? ports.port : 0 })
  return [text, `to ${first.backend.address.text}`, ...labels.values()].join(" ")
}

export const releaseOf = ({ binding: { entry, port } }: Published): Release => ({
  bindings: [{ protocol: entry.protocol, host: entry.host, port, backend: entry.backend }],
  labels: new Map()
})
