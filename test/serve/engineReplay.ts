/**
 * Replays a real Engine's recorded requests to a plugin in a lab, and compares the host with the granted ports: the
 * sockets held, the kernel's table, and which container TCP and UDP clients reach.
 */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import type { Plugin, WireBinding } from "../lab/Plugin.ts"
import { listening } from "../lab/Probe.ts"
import { request } from "../support/http.ts"
import type recorded from "../vectors/engine.json"

export type RecordedRequest = (typeof recorded)["scenarios"][number]["requests"][number]

const lab = Lab.make({
  network: {
    ipv4: "172.31.0.1/24",
    containers: { c1: { ipv4: "172.31.0.2" }, c2: { ipv4: "172.31.0.3" } }
  },
  networks: [
    {
      ipv4: "172.30.6.1/24",
      ipv6: "fd66::1/64",
      containers: { dual: { ipv4: "172.30.6.2", ipv6: "fd66::2" } }
    },
    { ipv4: "172.30.7.1/24", containers: { seven: { ipv4: "172.30.7.2" } } },
    { ipv4: "172.30.8.1/24", containers: { eight: { ipv4: "172.30.8.2" } } }
  ]
})

/** A container's name in its echo, by its address. */
const containers: Readonly<Record<string, string>> = {
  "172.31.0.2": "c1",
  "172.31.0.3": "c2",
  "172.30.6.2": "dual",
  "fd66::2": "dual",
  "172.30.7.2": "seven",
  "172.30.8.2": "eight"
}

const protocolNames: Readonly<Record<number, "tcp" | "udp" | "sctp">> = { 6: "tcp", 17: "udp", 132: "sctp" }

interface Entry {
  readonly Proto: number
  readonly BackendIP: string
  readonly BackendPort: number
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly FrontendPortEnd?: number
}

/** `6 0.0.0.0:8080 172.31.0.2:80` */
const keyOf = ({ Proto, FrontendIP, FrontendPort, BackendIP, BackendPort }: Entry) =>
  `${Proto} ${FrontendIP}:${FrontendPort} ${BackendIP}:${BackendPort}`

/** A specific address uses the socket of the unspecified one of its group. */
const socketOf = ({ Proto, FrontendIP, FrontendPort }: Entry, group: ReadonlyArray<Entry>) => {
  const covered = group.some((other) => other.FrontendIP === "0.0.0.0") && !FrontendIP.includes(":")
  const address = covered ? "0.0.0.0" : FrontendIP.includes(":") ? `[${FrontendIP}]` : FrontendIP
  return `${protocolNames[Proto]} ${address}:${FrontendPort}`
}

/** The ports that the kernel redirects, or guards on a loopback address; the others are only relayed. */
const inKernel = ({ FrontendIP, BackendIP }: Entry): boolean =>
  FrontendIP.includes(":") === BackendIP.includes(":")

/** Every container with a published port runs an echo. */
export const replayLab = Effect.gen(function* () {
  const made = yield* lab
  for (const [role, network] of Object.entries({ c1: 4, c2: 4, dual: 6, seven: 4, eight: 4 }))
    for (const any of network === 4 ? ["0.0.0.0"] : ["0.0.0.0", "::"]) {
      for (const port of [80, 81, 90, 91])
        yield* made.get(role).agent.echo({ protocol: "tcp", host: any, port })
      for (const port of [80, 53]) yield* made.get(role).agent.echo({ protocol: "udp", host: any, port })
    }
  return made
})

/** The requests to one plugin, or to several in turn on the same state, and the granted ports. */
export const makeReplay = ({ host, client }: Lab.Lab) => {
  /** The ports granted now, each with the socket that holds it. */
  const live = new Map<string, { readonly entry: Entry; readonly socket: string }>()
  /** The port granted now, by the port granted in the recording. */
  const granted = new Map<number, number>()

  const translated = (text: string) =>
    text.replaceAll(/"(FrontendPort|FrontendPortEnd)":(\d+)/g, (whole, field, port) =>
      granted.has(Number(port)) ? `"${field}":${granted.get(Number(port))}` : whole
    )

  const reached = (entry: Entry) => {
    // Only the host itself reaches ports published on a loopback address.
    const inside = entry.FrontendIP === "127.0.0.1"
    const from = inside ? host : client
    const outside = entry.FrontendIP.includes(":") ? "fd99::1" : "10.99.0.1"
    const to = { host: inside ? "127.0.0.1" : outside, port: entry.FrontendPort }
    return entry.Proto === 6
      ? Effect.map(from.agent.tcp({ ...to, close: "reset" }), ({ answer, outcome }) => answer?.who ?? outcome)
      : Effect.map(from.agent.udp(to), ({ replies, outcome }) => replies[0]?.who ?? outcome)
  }

  return {
    live,

    /** Sends a request, and returns a summary of the answer. */
    send: Effect.fnUntraced(function* (plugin: Plugin, { path, body, answered }: RecordedRequest) {
      const sent = translated(body)
      const { status, body: text } = yield* Effect.promise(() => request(plugin.socket, path, sent))
      const answer = JSON.parse(text) as {
        readonly Err?: string
        readonly PortBindings?: ReadonlyArray<WireBinding>
      }
      if (status !== 200) return `${status} ${answer.Err}`
      if (path === "/PortMapper.UnmapPorts")
        for (const binding of (JSON.parse(sent) as { readonly PortBindings: ReadonlyArray<Entry> })
          .PortBindings)
          live.delete(keyOf(binding))
      const { PortBindings: bindings } = answer
      if (bindings === undefined) return "done"
      const before = (JSON.parse(answered.body) as { readonly PortBindings: ReadonlyArray<Entry> })
        .PortBindings
      bindings.forEach((binding, index) => {
        const recordedPort = before[index]?.FrontendPort ?? 0
        if (recordedPort > 40000) granted.set(recordedPort, binding.FrontendPort)
        if (!binding.DiscardReq)
          live.set(keyOf(binding), { entry: binding, socket: socketOf(binding, bindings) })
      })
      return bindings.map((binding) =>
        binding.DiscardReq ? `discarded: ${binding.Error}` : `granted ${binding.FrontendPort}`
      )
    }),

    /** Granted ports are held, redirected and reachable, and no others are. */
    compareHost: Effect.fnUntraced(function* (plugin: Plugin, title: string) {
      const entries = [...live.values()].map(({ entry }) => entry)
      const sockets = [...live.values()].map(({ socket }) => socket)
      assert.deepStrictEqual(
        yield* listening(host, { pid: plugin.process.pid }),
        [...new Set(sockets)].sort(),
        title
      )
      const elements = Object.entries(yield* contents(host)).flatMap(([name, all]) =>
        name.startsWith("hairpin") ? [] : all
      )
      assert.strictEqual(elements.length, entries.filter(inKernel).length, `${title}: ${elements.join(", ")}`)
      for (const entry of entries)
        assert.strictEqual(yield* reached(entry), containers[entry.BackendIP], `${title}, ${keyOf(entry)}`)
    })
  }
}
