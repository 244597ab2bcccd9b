/** The host implementations of the services on Linux. */
import type { Layer } from "effect"
import type { Firewall, FirewallError } from "../../src/firewall/Firewall.ts"
import type { NamespaceBusy } from "./NamespaceLock.ts"
import * as Nft from "./NftFirewall.ts"

export * as LinuxRelay from "../relay/LinuxRelay.ts"
export type { Refused } from "../relay/ThreadPool.ts"
export * as LinuxByteCounter from "./ByteCounter.ts"
export * as LinuxConntrack from "./Conntrack.ts"
export { Errno } from "./Libc.ts"
export * as LinuxSockets from "./LinuxSockets.ts"
export { NamespaceBusy } from "./NamespaceLock.ts"
export type { TableChoice } from "./NftFirewall.ts"
export type { AcceptMark } from "./Ruleset.ts"

/** With a lock on the table of its own, which ends with the layer. */
export const NftFirewall = {
  layer: (options: Nft.TableChoice = {}): Layer.Layer<Firewall, FirewallError | NamespaceBusy> =>
    Nft.layer(options)
}
