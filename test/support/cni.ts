/** The CNI plugin as a runtime runs it: a process of its own, its parameters in the environment, its configuration on stdin. */
import * as Path from "node:path"
import type { Effect } from "effect"
import { type Ran, run } from "./command.ts"

export const cniProgram = Path.join(import.meta.dirname, "../../adapters/cni/main.ts")

export const cni = (
  command: string,
  config: object | string,
  variables: Readonly<Record<string, string>> = {}
): Effect.Effect<Ran> =>
  run([process.execPath, cniProgram], {
    input: typeof config === "string" ? config : JSON.stringify(config),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: "c1",
      CNI_NETNS: "/run/netns/c1",
      CNI_IFNAME: "eth0",
      CNI_PATH: "/opt/cni/bin",
      ...variables
    }
  })

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

/** As the library of the runtimes writes it: in one line, the keys in order. */
export const configText = (config: object): string =>
  JSON.stringify(Object.fromEntries(Object.entries(config).sort(([one], [other]) => (one < other ? -1 : 1))))
