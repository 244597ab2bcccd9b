/** The CNI plugin as a runtime runs it: its own process, parameters in the environment, configuration on stdin. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect } from "effect"
import { type Ran, run } from "./command.ts"
import { temporaryFolder } from "./socket.ts"

/** The program that does everything by itself. */
export const cniProgram = Path.join(import.meta.dirname, "../../adapters/cni/main.ts")

/** The installed front: it calls the running plugin, or runs the program. */
export const cniFront = Path.join(import.meta.dirname, "../../adapters/cni/front.sh")

export type Cni = (
  command: string,
  config: object | string,
  variables?: Readonly<Record<string, string>>
) => Effect.Effect<Ran>

const by =
  (program: ReadonlyArray<string>, env: Readonly<Record<string, string>>): Cni =>
  (command, config, variables = {}) =>
    run(program, {
      input: typeof config === "string" ? config : configText(config),
      env: {
        CNI_COMMAND: command,
        CNI_CONTAINERID: "c1",
        CNI_NETNS: "/run/netns/c1",
        CNI_IFNAME: "eth0",
        CNI_PATH: "/opt/cni/bin",
        ...env,
        ...variables
      }
    })

export const cniByNode = by([process.execPath, cniProgram], {})

/** `path` is its `PATH` for other programs; see `pathOf`. */
export const cniByFront = (path: string): Cni => by([cniFront], { PATH: path })

/** The same where this socket is the default one, or none is, whatever the machine runs. Needs `mounts`. */
export const cniByFrontAt = (path: string, socket = ""): Cni =>
  by(["unshare", "--mount", "sh", "-ec", ownDefault, "sh", path, cniFront, socket], {})

const ownDefault = `
mount -t tmpfs none /run
mkdir -p /run/docker/plugins
[ -z "$3" ] || ln -s "$3" /run/docker/plugins/portmapper.sock
PATH=$1 exec "$2"
`

/** A folder with these programs of this machine and no others. */
export const pathOf = Effect.fnUntraced(function* (...programs: ReadonlyArray<string>) {
  const folder = yield* temporaryFolder
  for (const program of programs) {
    const found = (process.env["PATH"] ?? "")
      .split(":")
      .map((folder) => Path.join(folder, program))
      .find((path) => Fs.existsSync(path))
    if (found === undefined) throw new Error(`this machine has no ${program}`)
    Fs.symlinkSync(found, Path.join(folder, program))
  }
  return folder
})

/** As the runtimes' library writes it: in one line, with sorted keys. */
export const configText = (config: object): string =>
  JSON.stringify(Object.fromEntries(Object.entries(config).sort(([one], [other]) => (one < other ? -1 : 1))))

/** The result of a plugin before ours in the chain. */
export const bridgeResult = (...addresses: ReadonlyArray<string>) => ({
  cniVersion: "1.0.0",
  interfaces: [
    { name: "cni0", mac: "00:11:22:33:44:55" },
    { name: "eth0", mac: "99:88:77:66:55:44", sandbox: "/run/netns/c1" }
  ],
  ips: addresses.map((address) => ({ address, gateway: "10.88.0.1", interface: 1 })),
  routes: [{ dst: "0.0.0.0/0" }],
  dns: {}
})

export interface Ports {
  readonly hostPort: number
  readonly containerPort: number
  readonly protocol?: string
  readonly hostIP?: string
}

export const portMappings = (...mappings: ReadonlyArray<Ports>) => ({
  runtimeConfig: { portMappings: mappings }
})
