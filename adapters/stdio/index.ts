/** JSON-RPC 2.0, one message a line, over any pair of streams: server and client. */
export { StreamFailed } from "./LineReader.ts"
export * as StdioClient from "./StdioClient.ts"
export * as StdioServer from "./StdioServer.ts"
