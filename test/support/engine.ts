/**
 * A Docker Engine of a test, in mount, network and process namespaces of its own: nothing of the host's Docker is seen or
 * touched, and all of it ends with the scope.
 */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect, Schedule, type Scope } from "effect"
import { temporaryFolder } from "./driver.ts"
import { type HttpAnswer, request } from "./http.ts"

export interface Engine {
  /** What the Engine sees as `/etc/docker/plugins`. */
  readonly plugins: string
  /** The command, to be run where the Engine's loopback is. */
  readonly inItsNetwork: (command: ReadonlyArray<string>) => ReadonlyArray<string>
  /** Asks its API. */
  readonly post: (path: string, body: object) => Effect.Effect<HttpAnswer>
  /** The end of what it logged. */
  readonly log: () => string
}

/** Why no Engine can be had here; `undefined` where it can. */
export const engineMissing = (): string | undefined => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return "needs root on Linux"
  const folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", ...(process.env["PATH"] ?? "").split(":")]
  const absent = ["dockerd", "unshare", "nsenter", "ip"].filter(
    (program) => !folders.some((folder) => Fs.existsSync(Path.join(folder, program)))
  )
  return absent.length === 0 ? undefined : `needs ${absent.join(", ")}`
}

const script = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /etc/docker
mount -t tmpfs tmpfs /etc/docker
mkdir /etc/docker/plugins
mount --bind "$1/plugins" /etc/docker/plugins
ip link set lo up
exec dockerd --iptables=false --ip6tables=false --ip-forward=false --bridge=none --storage-driver=vfs \\
  --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" -H "unix://$1/docker.sock"
`

export const startEngine: Effect.Effect<Engine, Error, Scope.Scope> = Effect.gen(function* () {
  const folder = yield* temporaryFolder
  const plugins = Path.join(folder, "plugins")
  Fs.mkdirSync(plugins)
  let log = ""
  const outer = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const namespaces = ["-m", "-n", "-p", "--fork", "--kill-child"]
      const child = spawn("unshare", [...namespaces, "bash", "-c", script, "dockerd", folder], {
        stdio: ["ignore", "pipe", "pipe"]
      })
      for (const stream of [child.stdout, child.stderr])
        stream.on("data", (chunk) => {
          log += chunk
        })
      return child
    }),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("close", () => resume(Effect.void))
        // The first process of the namespace takes all others with it, and `unshare` collects it.
        const inner = childOf(child.pid)
        if (inner === undefined) child.kill("SIGKILL")
        else process.kill(inner, "SIGKILL")
      })
  )
  const socket = Path.join(folder, "docker.sock")
  yield* Effect.retry(
    Effect.tryPromise({
      try: () => request(socket, "/_ping", "", { method: "GET" }),
      catch: () => new Error(`dockerd does not answer: ${log.slice(-2000)}`)
    }),
    { schedule: Schedule.spaced(100), times: 200 }
  )
  const inner = String(childOf(outer.pid))
  return {
    plugins,
    inItsNetwork: (command) => ["nsenter", "-t", inner, "-n", ...command],
    post: (path, body) =>
      Effect.promise(() =>
        request(socket, path, JSON.stringify(body), { headers: { "Content-Type": "application/json" } })
      ),
    log: () => log.slice(-2000)
  }
})

const childOf = (pid: number | undefined): number | undefined =>
  Number(Fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim()) || undefined
