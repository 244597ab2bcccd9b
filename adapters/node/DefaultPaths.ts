/** Where a plugin's socket and state lie by default. Imports next to nothing, for those who have to start fast. */
import * as Os from "node:os"
import * as Path from "node:path"

/** Where the Engine looks for the socket of a plugin of this name, or where an unprivileged one may be put. */
export const defaultSocket = (pluginName: string): string =>
  isRoot() ? `/run/docker/plugins/${pluginName}.sock` : Path.join(runtimeFolder(), `${pluginName}.sock`)

/** Root's is one for the host; any other user's lies beside the socket, a folder of its own since it is private. */
export const defaultState = (socketPath: string): string =>
  isRoot() ? "/run/portmapper" : `${socketPath.replace(/\.sock$/, "")}.state`

export const isRoot = (): boolean => process.getuid?.() === 0

const runtimeFolder = (): string => {
  const runtime = process.env["XDG_RUNTIME_DIR"]
  return runtime === undefined || runtime === ""
    ? Path.join(Os.tmpdir(), `portmapper-${process.getuid?.() ?? 0}`)
    : Path.join(runtime, "portmapper")
}
