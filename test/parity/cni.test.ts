/**
 * Our CNI plugin beside the reference `portmap`: the same pods in two labs alike, in a network of Debian's bridge and
 * either plugin after it, run by `cnitool`.
 */
import { existsSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { cniPlugins } from "../lab/Capabilities.ts"
import * as Cni from "../lab/Cni.ts"
import type { Reached } from "../lab/Containers.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { check } from "../lab/Process.ts"
import type { Ports } from "../support/cni.ts"
import { ask, both, closed, compare, type Row, reached } from "./Matrix.ts"

interface Side {
  readonly host: Namespace
  readonly client: Namespace
  /** A pod with published ports, and one without. */
  readonly web: Namespace
  readonly peer: Namespace
  /** The namespace of the first goes without a DEL, and another pod gets its ports. */
  readonly replace: Effect.Effect<void, unknown>
  readonly remove: Effect.Effect<void, unknown>
}

const outside = "10.99.0.1"
const gateway = "172.29.0.1"
const ports = { web: 8080, local: 8081, mute: 8082 }

const published: ReadonlyArray<Ports> = both.flatMap((protocol) => [
  { hostPort: ports.web, containerPort: 80, protocol },
  { hostPort: ports.local, containerPort: 80, protocol, hostIP: "127.0.0.1" },
  { hostPort: ports.mute, containerPort: 81, protocol }
])

const makeSide = Effect.fnUntraced(function* (publisher: "portmap" | "ours") {
  const { host, client, prefix } = yield* Lab.make({ network: { containers: {} }, bridgeNetfilter: true })
  const network = yield* Cni.make(host)
  if (publisher === "portmap") usePortmap(network.folder)
  else yield* Plugin.start(host, { folder: network.folder })
  const web = yield* Cni.pod(prefix, "web")
  const peer = yield* Cni.pod(prefix, "peer")
  const run = Effect.fnUntraced(function* (
    command: string,
    pod: Namespace,
    mappings: ReadonlyArray<Ports> = []
  ) {
    const { code, stderr, stdout } = yield* network.tool(command, pod, mappings)
    assert.strictEqual(code, 0, stderr + stdout)
  })
  yield* run("add", web, published)
  yield* run("add", peer)
  const serve = Effect.fnUntraced(function* ({ agent }: Namespace) {
    for (const protocol of both)
      for (const address of ["0.0.0.0", "::"]) yield* agent.echo({ protocol, host: address, port: 80 })
  })
  yield* serve(web)
  const next = yield* Cni.pod(prefix, "next")
  const replace = Effect.gen(function* () {
    yield* web.agent.stop
    yield* check("ip", ["netns", "del", web.name])
    yield* run("add", next, published)
    yield* serve(next)
  })
  const side: Side = { host, client, web, peer, replace, remove: run("del", next, published) }
  return side
})

const usePortmap = (folder: string): void => {
  const path = join(folder, "net/net.conflist")
  const config = JSON.parse(readFileSync(path, "utf8"))
  config.plugins.splice(-1, 1, { type: "portmap", capabilities: { portMappings: true } })
  writeFileSync(path, JSON.stringify(config))
  const plugin = join(folder, "bin/portmap")
  if (!existsSync(plugin)) symlinkSync(join(cniPlugins, "portmap"), plugin)
}

type Way = Pick<Row<unknown, Side>, "wanted" | "reference" | "isRelayed"> & {
  readonly port?: keyof typeof ports
  readonly from?: "host" | "client" | "web" | "peer"
  readonly source?: string
  readonly who?: string
}

/** One exchange with the pod's port at an address, over TCP and over UDP. */
const row = (report: string, what: string, host: string, way: Way): ReadonlyArray<Row<unknown, Side>> =>
  both.map((protocol) => {
    const {
      wanted,
      reference = wanted,
      isRelayed = false,
      from = "client",
      port = "web",
      who = "web",
      ...asked
    } = way
    return {
      ...{ report, what: `${what}${protocol === "udp" ? ", UDP" : ""}`, wanted, reference, isRelayed },
      look: (_, side) =>
        ask(side[from] satisfies Reached, who, {
          ...{ host, protocol, port: ports[port], ...asked },
          isWanted: !reference.includes("silence")
        })
    }
  })

const rows: ReadonlyArray<Row<unknown, Side>> = [
  row("suite", "from outside", outside, { wanted: reached }),
  row("suite", "from outside, over IPv6", "fd99::1", { wanted: reached }),
  row("suite", "from the host, by its address", outside, { from: "host", wanted: reached }),
  row("suite", "from the host, by its IPv6 address", "fd99::1", { from: "host", wanted: reached }),
  row("suite", "from the host, by 127.0.0.1", "127.0.0.1", { from: "host", wanted: reached }),
  row("suite", "from the host, by ::1", "::1", { from: "host", wanted: reached, reference: closed }),
  row("suite", "from another pod, by the host's address", outside, { from: "peer", wanted: reached }),
  row("suite", "from another pod, by its gateway", gateway, { from: "peer", wanted: reached }),
  // The reference needs a bridge with hairpin mode for these.
  row("4", "from the pod itself, by the host's address", outside, {
    ...{ from: "web", wanted: reached, reference: closed }
  }),
  row("4", "from the pod itself, by its gateway", gateway, {
    from: "web",
    wanted: reached,
    reference: closed
  }),
  row("5", "by 127.0.0.1, bound to another address", "127.0.0.1", {
    ...{ from: "host", source: outside, wanted: reached, isRelayed: true }
  }),
  row("suite", "on 127.0.0.1, from the host", "127.0.0.1", { port: "local", from: "host", wanted: reached }),
  row("suite", "on 127.0.0.1, from outside", outside, { port: "local", wanted: closed }),
  row("20", "a pod refuses, from outside", outside, { port: "mute", wanted: ["refused"] }),
  row("20", "a pod refuses, by 127.0.0.1", "127.0.0.1", { port: "mute", from: "host", wanted: ["refused"] })
].flat()

describeLab("portmapper-cni beside portmap", ["go", "cni", "iptables"], () => {
  it.live("is behind in nothing", () =>
    Effect.gen(function* () {
      const sides = { reference: yield* makeSide("portmap"), ours: yield* makeSide("ours") }
      yield* compare("portmapper-cni beside portmap", undefined, rows, sides)
      for (const side of Object.values(sides)) yield* side.replace
      const replaced = row("14", "the next pod, where the namespace of the last is gone", outside, {
        ...{ who: "next", wanted: reached, reference: closed }
      })
      yield* compare("after a namespace is gone", undefined, replaced, sides)
      for (const side of Object.values(sides)) yield* side.remove
      const removed = [row("suite", "after DEL, from outside", outside, { wanted: closed })].flat()
      yield* compare("after DEL", undefined, removed, sides)
    })
  )
})
