/** The plugin protocol over HTTP. */
export * from "./PluginServer.ts"
export * from "./PluginSocket.ts"
