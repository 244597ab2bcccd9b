/** The host implementations of the services on Linux. */
export * as LinuxSockets from "./LinuxSockets.ts"
export * as NftFirewall from "./NftFirewall.ts"
