/**
 * Containers of a lab's Engine, from an image made on the spot: a static busybox and nothing else, since no registry
 * is reachable. Each serves its name by HTTP on the given ports.
 */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { until } from "../support/until.ts"
import { type Dockerd, start as startDockerd } from "./Dockerd.ts"
import * as Lab from "./Lab.ts"
import { agentBy, type Namespace } from "./Namespace.ts"
import * as Plugin from "./Plugin.ts"
import { check, type LabError } from "./Process.ts"

export interface RunOptions {
  readonly labels?: Readonly<Record<string, string>>
  /** Additional options of `docker run`. */
  readonly args?: ReadonlyArray<string>
  readonly ports?: ReadonlyArray<number>
  readonly image?: string
}

/** A lab without containers: the Engine makes them. */
export const engineLab = Lab.make({ network: { ipv4: "172.31.0.1/24", containers: {} } })

/** The host of a lab, as its client sees it. */
export const outside = "10.99.0.1"

/** A lab's Engine with its own bridge and the images of `prepareImages`; `watch` starts the plugin beside it. */
export const startEngine = Effect.fn("Containers.startEngine")(function* (labelled: ImageLabels = {}) {
  const { host, client } = yield* engineLab
  const dockerd = yield* startDockerd(host, { bridge: true, iptables: true })
  yield* prepareImages(dockerd, labelled)
  const watch = (options: Omit<Plugin.PluginOptions, "arguments"> = {}) =>
    Plugin.start(host, { ...options, arguments: watching(dockerd.socket) })
  return { host, client, dockerd, watch }
})

/** Options of `serve`: it watches the Engine at this socket. */
export const watching = (socket: string, more: ReadonlyArray<string> = []): ReadonlyArray<string> => [
  ...["--watch", "--engine", `unix://${socket}`],
  ...more
]

/** Labels of images, by the image's name. */
type ImageLabels = Readonly<Record<string, Readonly<Record<string, string>>>>

/** Loads the image `busybox` into the Engine, and others based on it with their own labels. */
export const prepareImages = Effect.fn("Containers.prepareImages")(function* (
  dockerd: Dockerd,
  labelled: ImageLabels = {}
) {
  const folder = mkdtempSync(join(tmpdir(), "portmapper-image-"))
  mkdirSync(join(folder, "bin"))
  mkdirSync(join(folder, "www"))
  copyFileSync("/bin/busybox", join(folder, "bin", "busybox"))
  for (const applet of ["sh", "httpd", "sleep", "cat"]) symlinkSync("busybox", join(folder, "bin", applet))
  const images = Object.entries({ busybox: {}, ...labelled })
  for (const [name, labels] of images) {
    const changes = Object.entries(labels).map(([label, value]) => `-c 'LABEL ${label}="${value}"'`)
    yield* check("sh", [
      "-ec",
      `tar -C ${folder} -c . | docker --host unix://${dockerd.socket} import ${changes.join(" ")} - ${name}`
    ])
  }
  rmSync(folder, { recursive: true })
})

/** Runs one in the background, removed with the scope. Returns its id. */
export const runContainer = (
  dockerd: Dockerd,
  name: string,
  options: RunOptions = {}
): Effect.Effect<string, LabError, Scope.Scope> =>
  Effect.acquireRelease(leaveContainer(dockerd, name, options), (id) =>
    Effect.ignore(dockerd.docker(["rm", "--force", id]))
  )

/** As `runContainer`, but the container stays until someone removes it. */
export const leaveContainer = (
  dockerd: Dockerd,
  name: string,
  { labels = {}, args = [], ports = [80], image = "busybox" }: RunOptions = {}
): Effect.Effect<string, LabError> =>
  Effect.map(
    docker(dockerd, [
      "run",
      "--detach",
      "--stop-signal=KILL",
      `--name=${name}`,
      ...Object.entries(labels).map(([label, value]) => `--label=${label}=${value}`),
      ...args,
      image,
      "/bin/sh",
      "-c",
      `echo ${name} > /www/index.html; ${ports.map((port) => `httpd -p ${port} -h /www;`).join(" ")} exec sleep 3600`
    ]),
    (id) => id.trim()
  )

/** A place with an agent that sends and serves. */
export type Reached = Pick<Namespace, "agent">

export const pidOf = (dockerd: Dockerd, name: string): Effect.Effect<string, LabError> =>
  Effect.map(docker(dockerd, ["inspect", "--format={{.State.Pid}}", name]), (text) => text.trim())

/** The network namespace of a running container. */
export const inContainer = Effect.fnUntraced(function* (
  dockerd: Dockerd,
  name: string
): Effect.fn.Return<Reached, LabError, Scope.Scope> {
  const pid = yield* pidOf(dockerd, name)
  const agent = yield* Effect.acquireRelease(
    Effect.sync(() => agentBy("nsenter", [`--target=${pid}`, "--net", "--"], name)),
    ({ stop }) => stop
  )
  return { agent }
})

/** Runs `docker`, whose failure fails the test. */
export const docker = (dockerd: Dockerd, args: ReadonlyArray<string>): Effect.Effect<string, LabError> =>
  check("docker", ["--host", `unix://${dockerd.socket}`, ...args])

/** Each start of a container so far, as `start` on a line of its own. */
export const startsOf = (dockerd: Dockerd, name: string): Effect.Effect<string, LabError> =>
  Effect.suspend(() =>
    docker(dockerd, [
      ...["events", "--since=1h", `--until=${Math.ceil(Date.now() / 1000) + 1}`],
      ...[`--filter=container=${name}`, "--filter=event=start", "--format={{.Action}}"]
    ])
  )

/** The name served at a host's port, or `nobody`. */
export const servedAt = (
  from: Pick<Namespace, "exec">,
  host: string,
  port: number
): Effect.Effect<string, LabError> =>
  Effect.map(from.exec(process.execPath, ["-e", fetching, `http://${host}:${port}/`]), ({ code, stdout }) =>
    code === 0 ? stdout.trim() : "nobody"
  )

/** Debian's static busybox crashes in its own wget. */
const fetching = `
const [, url] = process.argv
fetch(url, { signal: AbortSignal.timeout(5_000) })
  .then((response) => response.text())
  .then((text) => process.stdout.write(text), () => process.exit(1))
`

/** Retries until the name is the expected one. */
export const servedSoon = (
  from: Pick<Namespace, "exec">,
  host: string,
  port: number,
  expected: string
): Effect.Effect<string, LabError> => until(servedAt(from, host, port), (served) => served === expected)
