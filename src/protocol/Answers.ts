/** Encodes answers as plain data in Go's field order, ready for `JSON.stringify`. */
import type { ListedMapping } from "./Driver.ts"
import type { Refused } from "./Limits.ts"
import type {
  ActivateResponse,
  ListPortsResponse,
  MapPortsResponse,
  WireMapping,
  WirePortBinding
} from "./Messages.ts"
import type { PortBinding } from "./PortBinding.ts"
import type { PortRange } from "./PortRange.ts"
import { protocolNumber } from "./Protocol.ts"

export const activateResponse: typeof ActivateResponse.Encoded = { Implements: ["PortMapper"] }

export const unmapPortsResponse: Record<string, never> = {}

export const mapPortsResponse = (bindings: ReadonlyArray<PortBinding>): typeof MapPortsResponse.Encoded => ({
  PortBindings: bindings.map(wireBinding),
  Err: ""
})

/** The answer to a full range repeats what a draft's Engine names a binding by. */
export const fullRangeResponse = (
  bindings: ReadonlyArray<PortBinding>,
  { last }: PortRange
): typeof MapPortsResponse.Encoded => ({
  PortBindings: bindings.map((binding) => ({
    ...wireBinding(binding),
    FrontendPortEnd: last,
    FullRange: true
  })),
  Err: ""
})

export const listPortsResponse = (
  mappings: ReadonlyArray<ListedMapping>
): typeof ListPortsResponse.Encoded => ({ Mappings: mappings.map(wireMapping) })

/** Repeats the frontend address as the request wrote it: `""` stays `""`, and an IPv4-mapped address stays one. */
const wireBinding = (binding: PortBinding): typeof WirePortBinding.Encoded => ({
  Proto: protocolNumber[binding.entry.protocol],
  BackendIP: binding.entry.backend.address.text,
  BackendPort: binding.entry.backend.port,
  FrontendIP: binding.entry.requestedAddress,
  FrontendPort: binding.port,
  DiscardReq: binding.discarded !== undefined,
  AllowForwarding: binding.allowForwarding,
  NAT: binding.nat ? { FromAddr: binding.nat.address?.text ?? "", FromPort: binding.nat.port } : null,
  Error: binding.discarded ?? null
})

const wireMapping = (mapping: ListedMapping): typeof WireMapping.Encoded => ({
  Proto: mapping.protocol,
  FrontendIP: mapping.frontendIp,
  FrontendPort: mapping.frontendPort,
  BackendIP: mapping.backendIp,
  BackendPort: mapping.backendPort,
  Mode: mapping.mode,
  Owner: mapping.owner,
  State: mapping.state,
  Since: new Date(mapping.sinceMillis).toISOString(),
  Labels: Object.fromEntries(mapping.labels),
  Connections: mapping.connections ?? null,
  BytesIn: mapping.bytesIn ?? null,
  BytesOut: mapping.bytesOut ?? null,
  Service: mapping.service ?? "",
  Refused: wireRefused(mapping.refused ?? {}),
  Slots: mapping.slots === undefined ? null : { Has: mapping.slots.has, Of: mapping.slots.of },
  Open: mapping.open ?? null,
  Container: mapping.container ?? "",
  Reason: mapping.reason ?? "",
  Host: mapping.at?.host ?? "",
  HostAddress: mapping.at?.address ?? ""
})

const wireRefused = (refused: Partial<Refused>): (typeof WireMapping.Encoded)["Refused"] => {
  const { allow = null, connections = null, rate = null, "rate-per-source": ratePerSource = null } = refused
  const counts = { Allow: allow, Connections: connections, Rate: rate, RatePerSource: ratePerSource }
  return Object.values(counts).every((count) => count === null) ? null : counts
}
