/** The host implementations of the services on Linux. */
import type { Layer } from "effect"
import type { Firewall, FirewallError } from "../../src/firewall/Firewall.ts"
import type { MarkConflict } from "./nft/LiveMark.ts"
import type { NamespaceBusy } from "./nft/NamespaceLock.ts"
import * as Nft from "./nft/NftFirewall.ts"

export * as LinuxRelay from "../relay/LinuxRelay.ts"
export type { Refused } from "../relay/ThreadPool.ts"
export * as LinuxByteCounter from "./conntrack/ByteCounter.ts"
export * as LinuxConntrack from "./conntrack/Conntrack.ts"
export { Errno } from "./Libc.ts"
export { MarkConflict } from "./nft/LiveMark.ts"
export { NamespaceBusy } from "./nft/NamespaceLock.ts"
export type { TableChoice } from "./nft/NftFirewall.ts"
export type { AcceptMark } from "./nft/Ruleset.ts"
export * as LinuxSockets from "./sockets/LinuxSockets.ts"

/** Takes a lock of its own on the table, and releases it when the layer closes. */
export const NftFirewall = {
  layer: (
    options: Nft.TableChoice = {}
  ): Layer.Layer<Firewall, FirewallError | MarkConflict | NamespaceBusy> => Nft.layer(options)
}
