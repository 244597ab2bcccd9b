/**
 * A CNI network in a lab's host: Debian's bridge and our plugin after it in the chain, run by the CNI project's own
 * `cnitool`. Its files lie in its own folder; the plugins see nothing of the machine's `/var/lib`.
 */
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { cniFront, configText, type Ports } from "../support/cni.ts"
import { cniPlugins } from "./Capabilities.ts"
import * as Namespace from "./Namespace.ts"
import { temporaryFolder } from "./Plugin.ts"
import { check, type LabError, type Output } from "./Process.ts"

export interface Network {
  readonly folder: string
  readonly socket: string
  /** Adds a network with a bridge of this name, after which this plugin publishes: ours, or the reference `portmap`. */
  readonly add: (name: string, subnet: string, publisher: "ours" | "portmap") => void
  /** `add`, `check`, `del`, `gc` or `status` of a pod. Any exit code is a success. */
  readonly tool: (
    command: string,
    pod: Namespace.Namespace,
    ports?: ReadonlyArray<Ports>
  ) => Effect.Effect<Output, LabError>
  /** Deletes the runtime's cache, as after a runtime lost its state. */
  readonly forget: Effect.Effect<void>
  /** The commands that needed a Node process, since the last call of this. */
  readonly byNode: Effect.Effect<ReadonlyArray<string>>
  /** The `PATH` in which the executable finds Node, for tests that start a runtime themselves. */
  readonly path: string
  /** Our plugin alone, as a runtime of specification 1.1 runs it for this network. */
  readonly plugin: (command: string, fields?: object) => Effect.Effect<Output, LabError>
}

/** Pods get addresses from .2 and ::2 on; the bridge is `cni0`. */
export const subnets = ["172.29.0.0/24", "fd55::/64"]

const name = "labnet"

export const make = Effect.fn("Cni.make")(function* (host: Namespace.Namespace) {
  const folder = yield* temporaryFolder
  const [bin, net, alone, state] = ["bin", "net", "alone", "var"].map((part) => join(folder, part)) as [
    string,
    string,
    string,
    string
  ]
  for (const path of [bin, net, alone, state]) mkdirSync(path)
  yield* check("go", ["install", "github.com/containernetworking/cni/cnitool@v1.3.0"], {
    env: { GOBIN: bin, GOFLAGS: "-mod=mod" },
    timeoutMillis: 120_000
  })
  for (const plugin of ["bridge", "host-local", "portmap"])
    symlinkSync(join(cniPlugins, plugin), join(bin, plugin))
  const executable = join(bin, "portmapper-cni")
  symlinkSync(cniFront, executable)
  // The `node` that the executable finds records each use.
  const nodeRuns = join(folder, "node-runs")
  mkdirSync(join(folder, "path"))
  writeFileSync(
    join(folder, "path/node"),
    `#!/bin/sh\necho "$CNI_COMMAND" >> ${nodeRuns}\nexec ${process.execPath} "$@"\n`,
    { mode: 0o755 }
  )
  const PATH = `${join(folder, "path")}:${process.env["PATH"]}`
  const ours = {
    type: "portmapper-cni",
    capabilities: { portMappings: true },
    socket: join(folder, "portmapper.sock")
  }
  // Debian's bridge plugin is older than specification 1.1.
  writeFileSync(
    join(net, "net.conflist"),
    JSON.stringify({ cniVersion: "1.0.0", name, plugins: [bridge(state, "cni0", subnets), ours] })
  )
  writeFileSync(join(alone, "net.conflist"), JSON.stringify({ cniVersion: "1.1.0", name, plugins: [ours] }))
  const run = (networks: string, command: string, path: string, ports: ReadonlyArray<Ports>) =>
    host.exec(
      "unshare",
      [
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-ec",
        privateState,
        "sh",
        state,
        join(bin, "cnitool"),
        command,
        name,
        path
      ],
      {
        env: {
          PATH,
          CNI_PATH: bin,
          NETCONFPATH: networks,
          CAP_ARGS: JSON.stringify({ portMappings: ports })
        },
        label: `cnitool ${command}`
      }
    )
  return {
    folder,
    socket: ours.socket,
    add: (name, subnet, publisher) => {
      const published =
        publisher === "ours" ? ours : { type: "portmap", capabilities: { portMappings: true } }
      writeFileSync(
        join(net, `${name}.conflist`),
        JSON.stringify({ cniVersion: "1.0.0", name, plugins: [bridge(state, name, [subnet]), published] })
      )
    },
    tool: (command, pod, ports = []) =>
      run(command === "gc" || command === "status" ? alone : net, command, pod.path, ports),
    path: PATH,
    byNode: Effect.sync(() => {
      if (!existsSync(nodeRuns)) return []
      const commands = readFileSync(nodeRuns, "utf8").trimEnd().split("\n")
      rmSync(nodeRuns)
      return commands
    }),
    forget: Effect.sync(() => rmSync(join(state, "cni"), { recursive: true, force: true })),
    plugin: (command, fields = {}) =>
      host.exec(executable, [], {
        input: configText({ cniVersion: "1.1.0", name, ...ours, capabilities: undefined, ...fields }),
        env: { PATH, CNI_COMMAND: command, CNI_PATH: bin },
        label: `portmapper-cni ${command}`
      })
  } satisfies Network
})

/** A namespace with only loopback; removed with the scope. */
export const pod = (
  prefix: string,
  role: string
): Effect.Effect<Namespace.Namespace, LabError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const made = Namespace.make(role, `${prefix}${role}`)
      return Effect.as(check("ip", ["netns", "add", made.name]), made)
    }),
    (made) => Effect.andThen(made.agent.stop, Effect.ignore(check("ip", ["netns", "del", made.name])))
  )

/** `cnitool`'s name for the container of a pod. */
export const containerId = ({ path }: Namespace.Namespace): string =>
  `cnitool-${createHash("sha512").update(path).digest("hex").slice(0, 20)}`

const privateState = 'mount --bind "$1" /var/lib; shift; exec "$@"'

const bridge = (state: string, name: string, subnets: ReadonlyArray<string>) => ({
  type: "bridge",
  bridge: name,
  isGateway: true,
  ipam: {
    type: "host-local",
    dataDir: join(state, "ipam"),
    ranges: subnets.map((subnet) => [{ subnet }]),
    routes: subnets.map((subnet) => ({ dst: subnet.includes(":") ? "::/0" : "0.0.0.0/0" }))
  }
})
