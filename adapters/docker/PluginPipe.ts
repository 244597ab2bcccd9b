/** The plugin on a Windows named pipe. There the Engine finds a plugin by its spec file alone. */
import { Effect, type Scope } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { type ServerOptions, serve } from "./PluginServer.ts"
import { ListenError, listen } from "./PluginTcp.ts"
import { type SpecFileError, writeSpec } from "./SpecFile.ts"

export interface PipeOptions extends ServerOptions {
  /** Where the spec file goes; the Engine's folder by default. */
  readonly specFolder?: string | undefined
}

/**
 * Serves the plugin on `\\.\pipe\NAME` until the scope closes, with a `NAME.spec` by which the Engine finds it.
 * Returns the spec file's path. The pipe is open to its owner, administrators and the system.
 */
export const serveWindows = Effect.fnUntraced(function* (
  name: string,
  options: PipeOptions = {}
): Effect.fn.Return<string, ListenError | SpecFileError, Driver | Scope.Scope> {
  const path = pipePath(name)
  if (!/^[^\\/\0]{1,247}$/.test(name))
    return yield* new ListenError({
      listener: path,
      detail: "a pipe's name has 1 to 247 characters and no slash"
    })
  yield* serve((server) => listen(server, { path }, path), options)
  return yield* writeSpec({ name, folder: options.specFolder, url: pipeUrl(name) })
})

export const pipePath = (name: string): string => `\\\\.\\pipe\\${name}`

/** The pipe's path with forward slashes, as go-winio takes it. */
export const pipeUrl = (name: string): string => `npipe:////./pipe/${name}`
