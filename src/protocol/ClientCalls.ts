/**
 * The caller's side of the protocol: encodes requests as plain data in Go's field order, and decodes what an answer
 * grants. The mirror image of `Requests.ts` and `Answers.ts`.
 */
import { Result } from "effect"
import { type Address, unspecified } from "./Address.ts"
import {
  type FollowRequest,
  type InterfaceRequest,
  type ListedMapping,
  mappingStates,
  type DrainRequest as WantedDrain
} from "./Driver.ts"
import type {
  DrainRequest,
  FollowContainerRequest,
  FollowInterfaceRequest,
  ListPortsResponse,
  MapGroupsRequest,
  MapGroupsResponse,
  MapPortsRequest,
  MapPortsResponse,
  UnmapPortsRequest,
  WireMapping,
  WirePortBinding
} from "./Messages.ts"
import type { Entry, Group, Labels, PortBinding, PortRequest, Release } from "./PortBinding.ts"
import { protocolNumber, protocolOfNumber } from "./Protocol.ts"
import { publishText, unpublishText } from "./PublishSyntax.ts"

export const mapPortsRequest = ({ entries, ports, labels }: Group): typeof MapPortsRequest.Encoded => ({
  Reqs: entries.map(({ protocol, requestedAddress, backend }) => ({
    Proto: protocolNumber[protocol],
    BackendIP: backend.address.text,
    BackendPort: backend.port,
    FrontendIP: requestedAddress,
    ...frontendPorts(ports)
  })),
  Labels: Object.fromEntries(labels)
})

export const mapGroupsRequest = (groups: ReadonlyArray<Group>): typeof MapGroupsRequest.Encoded => ({
  Groups: groups.map(mapPortsRequest)
})

export const followContainerRequest = ({
  container,
  publish,
  labels
}: FollowRequest): typeof FollowContainerRequest.Encoded => ({
  Container: container,
  Publish: publish.map(publishText),
  Labels: Object.fromEntries(labels)
})

export const followInterfaceRequest = ({
  to: { v4, v6 },
  publish,
  labels
}: InterfaceRequest): typeof FollowInterfaceRequest.Encoded => ({
  To: [v4, v6].flatMap((address) => address?.text ?? []),
  Publish: publish.map(publishText),
  Labels: Object.fromEntries(labels)
})

export const drainRequest = ({ backend, ports }: WantedDrain): typeof DrainRequest.Encoded => ({
  Backend: backend,
  Ports: ports.map(unpublishText)
})

/** Sends what an Engine sends: the frontend and backend of each binding, without the answer's other fields. */
export const unmapPortsRequest = ({ bindings, labels }: Release): typeof UnmapPortsRequest.Encoded => ({
  PortBindings: bindings.map(({ protocol, host, port, backend }) => ({
    Proto: protocolNumber[protocol],
    BackendIP: backend.address?.text ?? "",
    BackendPort: backend.port,
    FrontendIP: host.text,
    FrontendPort: port,
    DiscardReq: false,
    AllowForwarding: false,
    NAT: null,
    Error: null
  })),
  Labels: Object.fromEntries(labels)
})

/**
 * The bindings granted, in the order requested. Trusts the answer as the Engine does: where it names another
 * address or port than the request, that one was granted. The failure says why the answer does not fit this group.
 */
export const bindingsGranted = (
  { entries }: Group,
  { PortBindings }: typeof MapPortsResponse.Type
): Result.Result<ReadonlyArray<PortBinding>, string> => {
  const answered = PortBindings ?? []
  if (answered.length !== entries.length)
    return Result.fail(`the answer has ${answered.length} bindings for a group of ${entries.length}`)
  return Result.all(answered.map((binding, index) => bindingGranted(binding, entries[index] as Entry)))
}

export const groupsGranted = (
  groups: ReadonlyArray<Group>,
  { Groups }: typeof MapGroupsResponse.Type
): Result.Result<ReadonlyArray<ReadonlyArray<PortBinding>>, string> => {
  const answered = Groups ?? []
  if (answered.length !== groups.length)
    return Result.fail(`the answer has ${answered.length} groups for a request of ${groups.length}`)
  return Result.all(answered.map((answer, index) => bindingsGranted(groups[index] as Group, answer)))
}

/** The bindings granted to what is followed: only the answer says which addresses the container or interface has. */
export const bindingsFollowed = ({
  PortBindings
}: typeof MapPortsResponse.Type): Result.Result<ReadonlyArray<PortBinding>, string> =>
  Result.all(
    (PortBindings ?? []).map((binding) => {
      const { BackendIP: address, BackendPort: port } = binding
      if (address === undefined) return Result.fail("a binding of the answer has no backend address")
      const host = unspecified(address.family)
      return bindingGranted(binding, {
        protocol: "tcp",
        host,
        requestedAddress: "",
        backend: { address, port }
      })
    })
  )

export const mappingsListed = ({
  Mappings
}: typeof ListPortsResponse.Type): Result.Result<ReadonlyArray<ListedMapping>, string> =>
  Result.all((Mappings ?? []).map(mappingListed))

const frontendPorts = (
  ports: PortRequest
): { readonly FrontendPort: number; readonly FrontendPortEnd: number } => {
  switch (ports._tag) {
    case "Exact":
      return { FrontendPort: ports.port, FrontendPortEnd: ports.port }
    case "Range":
      return { FrontendPort: ports.first, FrontendPortEnd: ports.last }
    case "Ephemeral":
      return { FrontendPort: 0, FrontendPortEnd: 0 }
  }
}

const bindingGranted = (
  binding: typeof WirePortBinding.Type,
  entry: Entry
): Result.Result<PortBinding, string> => {
  const protocol = protocolOfNumber(binding.Proto)
  if (protocol === undefined) return Result.fail(unknownProtocol(binding.Proto))
  const address = binding.BackendIP ?? entry.backend.address
  return Result.succeed({
    entry: {
      protocol,
      host: binding.FrontendIP ?? unspecified(address.family),
      requestedAddress: textOf(binding.FrontendIP),
      backend: { address, port: binding.BackendPort }
    },
    port: binding.FrontendPort,
    discarded: binding.DiscardReq ? (binding.Error ?? "no reason was given") : undefined,
    allowForwarding: binding.AllowForwarding,
    nat: binding.NAT === null ? undefined : { address: binding.NAT.FromAddr, port: binding.NAT.FromPort }
  })
}

const mappingListed = (mapping: typeof WireMapping.Type): Result.Result<ListedMapping, string> => {
  const state = mappingStates.find((known) => known === mapping.State)
  const sinceMillis = Date.parse(mapping.Since)
  if (state === undefined) return Result.fail(`the state ${JSON.stringify(mapping.State)} is unknown`)
  if (protocolOfNumber(mapping.Proto) === undefined) return Result.fail(unknownProtocol(mapping.Proto))
  if (Number.isNaN(sinceMillis)) return Result.fail(`${JSON.stringify(mapping.Since)} is no time`)
  return Result.succeed({
    protocol: mapping.Proto,
    frontendIp: textOf(mapping.FrontendIP),
    frontendPort: mapping.FrontendPort,
    backendIp: textOf(mapping.BackendIP),
    backendPort: mapping.BackendPort,
    mode: mapping.Mode,
    owner: mapping.Owner,
    state,
    sinceMillis,
    labels: mapping.Labels ?? noLabels,
    connections: mapping.Connections ?? undefined,
    bytesIn: mapping.BytesIn ?? undefined,
    bytesOut: mapping.BytesOut ?? undefined,
    service: mapping.Service === "" ? undefined : mapping.Service,
    refused: refusedListed(mapping.Refused),
    open: mapping.Open ?? undefined,
    slots: mapping.Slots === null ? undefined : { has: mapping.Slots.Has, of: mapping.Slots.Of },
    container: mapping.Container === "" ? undefined : mapping.Container,
    reason: mapping.Reason === "" ? undefined : mapping.Reason,
    at: mapping.Host === "" ? undefined : { host: mapping.Host, address: mapping.HostAddress || undefined }
  })
}

const refusedListed = (refused: (typeof WireMapping.Type)["Refused"]): ListedMapping["refused"] => {
  if (refused === null || refused === undefined) return undefined
  const { Allow, Connections, Rate, RatePerSource } = refused
  return {
    ...(Allow === null ? {} : { allow: Allow }),
    ...(Connections === null ? {} : { connections: Connections }),
    ...(Rate === null ? {} : { rate: Rate }),
    ...(RatePerSource === null ? {} : { "rate-per-source": RatePerSource })
  }
}

const unknownProtocol = (number: number): string => `the protocol ${number} is none with ports`

const textOf = (address: Address | undefined): string => address?.text ?? ""

const noLabels: Labels = new Map()
