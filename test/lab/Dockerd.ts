/**
 * A real Engine in a namespace of the lab: Debian's dockerd with all its files in its own folder. It also gets a
 * private view of the file system in which `/run` is empty, `/run/docker` and `/etc/docker` are folders of ours, and
 * nothing of the machine's own Engine is seen or changed.
 */
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { Effect, type Scope } from "effect"
import { temporaryFolder } from "../support/folders.ts"
import { type HttpAnswer, request } from "../support/http.ts"
import type { Namespace } from "./Namespace.ts"
import { check, LabError, type Output, type RunOptions, run } from "./Process.ts"
import { type Running, spawn } from "./Running.ts"

export interface DockerdOptions {
  /** A folder kept from one start to the next, data included. Default: a new one, removed with the scope. */
  readonly folder?: string
  /** The Engine's own `docker0`. Default false. */
  readonly bridge?: boolean
  /** Lets it write IPv4 rules, in its namespace; IPv6 ones are an experimental feature of 20.10. Default false. */
  readonly iptables?: boolean
  readonly args?: ReadonlyArray<string>
}

export interface Dockerd {
  readonly process: Running
  /** The API's Unix socket. */
  readonly socket: string
  /** What the Engine sees as `/run/docker/plugins`. A plugin may create its socket here. */
  readonly pluginFolder: string
  /** What the Engine sees as `/etc/docker/plugins`, for `.spec` and `.json` files. */
  readonly specFolder: string
  /**
   * Shows a plugin's socket to the Engine as `/run/docker/plugins/NAME.sock`. The socket may lie anywhere outside
   * `/run`.
   */
  readonly plugin: (name: string, socketPath: string) => Effect.Effect<void, LabError>
  /** One request to the API; `body` goes as JSON. */
  readonly api: (method: string, path: string, body?: unknown) => Effect.Effect<HttpAnswer, LabError>
  /** The `docker` client on this Engine. Any exit code is a success. */
  readonly docker: (args: ReadonlyArray<string>, options?: RunOptions) => Effect.Effect<Output, LabError>
  /** Runs a command in the Engine's network namespace, with its `/run` and its `/etc/docker`. */
  readonly check: (
    command: string,
    args?: ReadonlyArray<string>,
    options?: RunOptions
  ) => Effect.Effect<string, LabError>
}

export const start = Effect.fn("Dockerd.start")(function* (
  namespace: Namespace,
  options: DockerdOptions = {}
): Effect.fn.Return<Dockerd, LabError, Scope.Scope> {
  const folder = options.folder === undefined ? yield* temporaryFolder : resolve(options.folder)
  const pluginFolder = join(folder, "run", "plugins")
  const specFolder = join(folder, "etc", "plugins")
  const socket = join(folder, "api.sock")
  mkdirSync(pluginFolder, { recursive: true })
  mkdirSync(specFolder, { recursive: true })
  mkdirSync(join(folder, "overlay"), { recursive: true })
  writeFileSync(join(folder, "daemon.json"), "{}")
  const daemon = yield* spawn(
    "unshare",
    [
      "--mount",
      "--propagation",
      "private",
      "sh",
      "-ec",
      privateView,
      "sh",
      folder,
      namespace.path,
      "dockerd"
    ].concat(flags(folder, socket, options)),
    { graceMillis: 10_000, label: "dockerd" }
  )
  yield* daemon.waitForLine("API listen on")
  const api: Dockerd["api"] = (method, path, body) => {
    const headers = { "content-type": "application/json" }
    return Effect.tryPromise({
      try: () => request(socket, path, body === undefined ? "" : JSON.stringify(body), { method, headers }),
      catch: (error) => new LabError({ operation: `${method} ${path}`, detail: String(error) })
    })
  }
  return {
    process: daemon,
    socket,
    pluginFolder,
    specFolder,
    plugin: (name, path) => show(join(pluginFolder, `${name}.sock`), resolve(path)),
    api,
    docker: (args, more = {}) => run("docker", ["--host", `unix://${socket}`, ...args], more),
    check: (command, args = [], more = {}) =>
      check("nsenter", [`--target=${daemon.pid}`, "--mount", "--net", "--", command, ...args], more)
  }
})

const flags = (folder: string, socket: string, options: DockerdOptions): ReadonlyArray<string> => [
  `--config-file=${join(folder, "daemon.json")}`,
  `--data-root=${join(folder, "data")}`,
  `--exec-root=${join(folder, "exec")}`,
  `--pidfile=${join(folder, "dockerd.pid")}`,
  `--host=unix://${socket}`,
  "--storage-driver=vfs",
  `--iptables=${options.iptables === true}`,
  "--ip6tables=false",
  ...(options.bridge === true ? [] : ["--bridge=none"]),
  ...(options.args ?? [])
]

/**
 * Arguments: our folder, the network namespace, the command. The namespace is opened before `/run` is covered, and
 * entered by `nsenter`: `ip netns exec` mounts a new `/sys`, and dockerd refuses to start without its cgroups there.
 * Each step `exec`s, so the Engine keeps the pid that was spawned.
 */
const privateView = `
folder=$1
exec 9<"$2"
shift 2
mount -t tmpfs tmpfs /run
mkdir -p /run/docker /run/lock
mount --bind "$folder/run" /run/docker
if [ ! -d /etc/docker ]; then
  mount -t tmpfs tmpfs "$folder/overlay"
  mkdir "$folder/overlay/upper" "$folder/overlay/work"
  mount -t overlay overlay -o "lowerdir=/etc,upperdir=$folder/overlay/upper,workdir=$folder/overlay/work" /etc
  mkdir /etc/docker
fi
mount --bind "$folder/etc" /etc/docker
if ! grep -qE '^\\S+ /sys/fs/cgroup cgroup2 | cgroup [^ ]*devices' /proc/mounts; then
  mount -t tmpfs tmpfs /sys/fs/cgroup
  mkdir /sys/fs/cgroup/devices
  mount -t cgroup -o devices cgroup /sys/fs/cgroup/devices
fi
exec nsenter --net=/proc/self/fd/9 -- "$@"
`

const show = (link: string, target: string): Effect.Effect<void, LabError> => {
  const operation = `show ${target} as a plugin`
  if (/^(\/var)?\/run\//.test(target))
    return Effect.fail(new LabError({ operation, detail: "the Engine's /run is its own" }))
  return Effect.try({
    try: () => {
      if (existsSync(link)) rmSync(link)
      symlinkSync(target, link)
    },
    catch: (error) => new LabError({ operation, detail: String(error) })
  })
}
