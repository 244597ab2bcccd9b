/** The plugin protocol over HTTP: servers for sockets and ports, and a client for any plugin. */
export { type HttpOptions, TlsFileError, type TlsFiles as ClientTlsFiles } from "../node/HttpClient.ts"
export type { WrittenFile } from "../node/WrittenFile.ts"
export type {
  AdoptedConnection,
  AdoptedListener,
  Details,
  ListenerHandoff,
  Place
} from "../upgrade/ListenerHandoff.ts"
export {
  AnswerLost,
  CallRefused,
  CannotConnect,
  type ClientError,
  NotOffered,
  NotTheProtocol
} from "./ClientError.ts"
export * from "./InheritedSocket.ts"
export { type Metrics, type MetricsOptions, makeMetrics } from "./Metrics.ts"
export { type PluginAddress, parsePluginUrl, socketAddress } from "./PluginAddress.ts"
export { type ClientOptions, makeClient, type PluginClient } from "./PluginClient.ts"
export * from "./PluginDriver.ts"
export { type PipeOptions, serveWindows } from "./PluginPipe.ts"
export { type PlacedOptions, type ServerOptions, serve } from "./PluginServer.ts"
export { SocketFileError, type SocketFileOptions, serveUnix } from "./PluginSocket.ts"
export {
  type HostPort,
  ListenError,
  type Listening,
  parseHostPort,
  type SomeTlsFiles,
  serveTcp,
  type TcpError,
  type TcpListener,
  type TcpOptions,
  TlsFilesMissing
} from "./PluginTcp.ts"
export type { ProcessUse } from "./ProcessMetrics.ts"
export type { Handler, Page, Posted, Reply, RouteOptions } from "./Routes.ts"
export { type ClientTls, type SpecAddress, SpecFileError, type SpecOptions, writeSpec } from "./SpecFile.ts"
export type { Renewals, TlsFiles } from "./TlsFiles.ts"
