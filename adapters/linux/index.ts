/** The host implementations of the services on Linux. */

export * as LinuxRelay from "../relay/LinuxRelay.ts"
export type { Refused } from "../relay/ThreadPool.ts"
export * as LinuxByteCounter from "./ByteCounter.ts"
export * as LinuxConntrack from "./Conntrack.ts"
export { Errno } from "./Libc.ts"
export * as LinuxSockets from "./LinuxSockets.ts"
export * as NftFirewall from "./NftFirewall.ts"
export type { AcceptMark } from "./Ruleset.ts"
