/** The host implementations of the services on Linux. */
export * as LinuxRelay from "../relay/LinuxRelay.ts"
export * as NftFirewall from "./nft/NftFirewall.ts"
export * as LinuxSockets from "./sockets/LinuxSockets.ts"
