/** The plugin protocol over HTTP. */

export * from "./ClientError.ts"
export { type Metrics, makeMetrics } from "./Metrics.ts"
export { type PluginAddress, parsePluginUrl, socketAddress } from "./PluginAddress.ts"
export * from "./PluginClient.ts"
export * from "./PluginServer.ts"
export * from "./PluginSocket.ts"
