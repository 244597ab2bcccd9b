/** The whole built-in mapper on this Linux host, for a program that embeds it. */
export { NamespaceBusy } from "../linux/NamespaceLock.ts"
export type { AcceptMark } from "../linux/Ruleset.ts"
export { StateLocked } from "../node/StateLock.ts"
export { type HostOptions, HostUnavailable, hostLayer } from "./HostLayer.ts"
