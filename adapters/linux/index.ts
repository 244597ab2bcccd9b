/** The host implementations of the services on Linux. */
export * as LinuxRelay from "../relay/LinuxRelay.ts"
export * as LinuxSockets from "./LinuxSockets.ts"
export * as NftFirewall from "./NftFirewall.ts"
