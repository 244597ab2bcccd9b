/**
 * The mapper's functions, its messages and its services. Transports and host implementations have entries of their
 * own.
 */
export * from "./firewall/ByteCounter.ts"
export {
  Conntrack,
  ConntrackError,
  type FlowBackend,
  type FlowFrontend,
  MemoryConntrack
} from "./firewall/Conntrack.ts"
export {
  type Change,
  type Counted,
  Firewall,
  FirewallError,
  type Guard,
  type Limit,
  MemoryFirewall,
  type Redirect,
  type RefusedFlow,
  type Rule
} from "./firewall/Firewall.ts"
export type { ApplyError } from "./mapper/apply/Apply.ts"
export { UnmapError } from "./mapper/apply/Release.ts"
export {
  type Attributed,
  type Attribution,
  type BackendState,
  Backends,
  MapperConfig,
  type MapperServices
} from "./mapper/MapperContext.ts"
export {
  type LostRecord,
  MappingStore,
  MemoryStore,
  type Stored,
  type StoredAll,
  type StoredEngine,
  type StoredState,
  StoreError
} from "./mapper/MappingStore.ts"
export {
  type Idle,
  type Mode,
  modes,
  type Policy,
  type PortScope,
  parsePolicy
} from "./mapper/model/Labels.ts"
export {
  type DirtyFlags,
  type EngineEpoch,
  type Mapping,
  type MappingEntry,
  Mappings,
  type Resources,
  type Share,
  type Status
} from "./mapper/model/Mapping.ts"
export { type MapError, mapPorts, PortMapper, unmapPorts } from "./mapper/PortMapper.ts"
export { type Capabilities, ModeUnavailable, NothingServed, type PlanError } from "./mapper/plan/Plan.ts"
export { ServiceRefused } from "./mapper/plan/Services.ts"
export { type Restored, restore } from "./mapper/restore/Restore.ts"
export { InjectedFailure, Steps } from "./memory/Steps.ts"
export * from "./page/PageState.ts"
export * from "./ports/HostSockets.ts"
export * from "./ports/PortAllocator.ts"
export {
  type Claimed,
  type ClusterPort,
  type Needs,
  NoCluster,
  PortClaims,
  type Wanted
} from "./ports/PortClaims.ts"
export type { Frontend, PortSet } from "./ports/PortTable.ts"
export { Address, addressUnsafe, type Family, parseAddress } from "./protocol/Address.ts"
export { CallObserver, type FinishedCall } from "./protocol/CallObserver.ts"
export {
  type Carriers,
  type Connections,
  CurrentOwner,
  type DrainRequest,
  Driver,
  type DriverError,
  type FollowRequest,
  type GroupsError,
  type InterfaceRequest,
  isOwner,
  type ListedMapping,
  ListedOwner,
  ListedScope,
  type ListedSlots,
  type MappingState
} from "./protocol/Driver.ts"
export { type Limits, noneRefused, type RefusalReason, type Refused } from "./protocol/Limits.ts"
export * from "./protocol/Messages.ts"
export {
  type Answer,
  type Body,
  type CallError,
  CallTimedOut,
  call,
  type Failure,
  failureOf,
  kindOf,
  Method,
  MethodNotFound,
  mapGroup,
  mapGroupsTogether,
  textBody,
  unmapBindings,
  valueBody
} from "./protocol/Operations.ts"
export type {
  Endpoint,
  Entry,
  Group,
  Labels,
  PortBinding,
  PortRequest,
  PublishedPort,
  Release,
  ReleasedBinding
} from "./protocol/PortBinding.ts"
export { type PortRange, parsePortRange } from "./protocol/PortRange.ts"
export { Protocol } from "./protocol/Protocol.ts"
export type { Publish, PublishTo, Unpublish } from "./protocol/PublishSyntax.ts"
export { Issue, RequestError } from "./protocol/RequestError.ts"
export { groupOf, releaseOf } from "./protocol/Requests.ts"
export type { Balance, Size, SlotShare } from "./protocol/Slots.ts"
export {
  type MemoryConnection,
  MemoryRelay,
  Relay,
  type RelayCount,
  RelayError,
  type Route,
  type RouteFrontend
} from "./relay/Relay.ts"
