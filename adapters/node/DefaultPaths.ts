/** The default paths of a plugin's socket and state. Imports next to nothing, for programs that have to start fast. */
import * as Os from "node:os"
import * as Path from "node:path"

/** Root: where the Engine looks for the socket of a plugin of this name. Other users: a path that they may create. */
export const defaultSocket = (pluginName: string): string =>
  isRoot() ? `/run/docker/plugins/${pluginName}.sock` : Path.join(runtimeFolder(), `${pluginName}.sock`)

/** Root has one for the host; any other user's is a private folder beside the socket. */
export const defaultState = (socketPath: string): string =>
  isRoot() ? "/run/portmapper" : `${socketPath.replace(/\.sock$/, "")}.state`

/** Where root's state is that outlives a restart of the host, which empties /run. */
export const lastingState = (state: string): string =>
  isRoot() ? state.replace(/^\/run\//, "/var/lib/") : state

export const isRoot = (): boolean => process.getuid?.() === 0

const runtimeFolder = (): string => {
  const runtime = process.env["XDG_RUNTIME_DIR"]
  return runtime === undefined || runtime === ""
    ? Path.join(Os.tmpdir(), `portmapper-${process.getuid?.() ?? 0}`)
    : Path.join(runtime, "portmapper")
}
