/**
 * What a real Engine sent, replayed against the real plugin: for each request the exact answer expected, and after each
 * the sockets held, the kernel's table, and who is reached by TCP and UDP from outside.
 */
import { chmodSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { capabilities } from "../lab/Capabilities.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { listening } from "../lab/Probe.ts"
import { request } from "../support/http.ts"
import recorded from "../vectors/engine.json" with { type: "json" }
import { expected } from "./engineAnswers.ts"

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

/** A container by its address, as its echo calls itself. */
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

/** A specific address rests on the socket of the unspecified one of its group. */
const socketOf = ({ Proto, FrontendIP, FrontendPort }: Entry, group: ReadonlyArray<Entry>) => {
  const covered = group.some((other) => other.FrontendIP === "0.0.0.0") && !FrontendIP.includes(":")
  const address = covered ? "0.0.0.0" : FrontendIP.includes(":") ? `[${FrontendIP}]` : FrontendIP
  return `${protocolNames[Proto]} ${address}:${FrontendPort}`
}

/** An `nft` that refuses while there is a file `refuse` beside it, so that the plugin can't put its table back. */
const refusingNft = Effect.map(Plugin.temporaryFolder, (folder) => {
  const [path, flag] = [join(folder, "nft"), join(folder, "refuse")]
  writeFileSync(path, `#!/bin/sh\n[ -e ${flag} ] && { echo refused >&2; exit 1; }\nexec /usr/sbin/nft "$@"\n`)
  chmodSync(path, 0o755)
  return { folder, refuse: () => writeFileSync(flag, ""), relent: () => rmSync(flag) }
})

/** A map that was declared constant gives up no element. */
const freezeTable = (host: Namespace) =>
  Effect.flatMap(tableText(host), (text) =>
    host.check("nft", ["-f", "-"], {
      input: `delete table inet portmapper\n${text.replace("map any4 {", "map any4 {\n flags constant")}`
    })
  )

/** The plugin finds its table gone, and puts it back. */
const waitForRepair = (host: Namespace, mappings: number) =>
  Effect.gen(function* () {
    const deadline = performance.now() + 20_000
    while ((yield* contents(host))["any4"]?.length !== mappings) {
      assert.isBelow(performance.now(), deadline, "the table is put back")
      yield* Effect.sleep(50)
    }
  })

/** What the kernel redirects, or guards where it is published on a loopback address; the rest is relayed alone. */
const inKernel = ({ FrontendIP, BackendIP }: Entry): boolean =>
  FrontendIP.includes(":") === BackendIP.includes(":")

const tableText = (host: Namespace) => host.check("nft", ["list", "table", "inet", "portmapper"])

describeLab("an Engine's recorded requests", [], () => {
  it.live(
    "are answered, and what they publish is reached",
    () =>
      Effect.gen(function* () {
        const made = yield* lab
        const { host, client } = made
        for (const [role, network] of Object.entries({ c1: 4, c2: 4, dual: 6, seven: 4, eight: 4 }))
          for (const any of network === 4 ? ["0.0.0.0"] : ["0.0.0.0", "::"]) {
            for (const port of [80, 81, 90, 91])
              yield* made.get(role).agent.echo({ protocol: "tcp", host: any, port })
            for (const port of [80, 53])
              yield* made.get(role).agent.echo({ protocol: "udp", host: any, port })
          }
        const nft = yield* refusingNft
        const plugin = yield* Plugin.start(host, { env: { PATH: `${nft.folder}:${process.env["PATH"]}` } })
        /** What is granted now, each with the socket that holds its port. */
        const live = new Map<string, { readonly entry: Entry; readonly socket: string }>()
        /** The port granted now, by the one that was granted in the recording. */
        const granted = new Map<number, number>()

        const translated = (text: string) =>
          text.replaceAll(/"(FrontendPort|FrontendPortEnd)":(\d+)/g, (whole, field, port) =>
            granted.has(Number(port)) ? `"${field}":${granted.get(Number(port))}` : whole
          )

        const reached = (entry: Entry) => {
          // What is published on a loopback address is for the host itself.
          const inside = entry.FrontendIP === "127.0.0.1"
          const from = inside ? host : client
          const outside = entry.FrontendIP.includes(":") ? "fd99::1" : "10.99.0.1"
          const to = { host: inside ? "127.0.0.1" : outside, port: entry.FrontendPort }
          return entry.Proto === 6
            ? Effect.map(
                from.agent.tcp({ ...to, close: "reset" }),
                ({ answer, outcome }) => answer?.who ?? outcome
              )
            : Effect.map(from.agent.udp(to), ({ replies, outcome }) => replies[0]?.who ?? outcome)
        }

        const compareHost = (title: string) =>
          Effect.gen(function* () {
            const entries = [...live.values()].map(({ entry }) => entry)
            const sockets = [...live.values()].map(({ socket }) => socket)
            assert.deepStrictEqual(
              yield* listening(host, { pid: plugin.process.pid }),
              [...new Set(sockets)].sort(),
              title
            )
            const elements = Object.values(yield* contents(host)).flat()
            assert.strictEqual(
              elements.length,
              entries.filter(inKernel).length,
              `${title}: ${elements.join(", ")}`
            )
            for (const entry of entries)
              assert.strictEqual(
                yield* reached(entry),
                containers[entry.BackendIP],
                `${title}, ${keyOf(entry)}`
              )
          })

        const [first = 0] = (yield* host.check("cat", ["/proc/sys/net/ipv4/ip_local_port_range"]))
          .split(/\s+/)
          .map(Number)
        const expectedAnswers = expected(first, capabilities().sctp === undefined)

        for (const { scenario, requests } of recorded.scenarios) {
          const answers = expectedAnswers[scenario] ?? []
          assert.strictEqual(answers.length, requests.length, scenario)
          let step = 0
          for (const { path, body, answered } of requests) {
            const title = `${scenario} ${++step}`
            if (scenario === "unmap500" && step === 3) {
              nft.refuse()
              yield* freezeTable(host)
            }
            const sent = translated(body)
            const { status, body: text } = yield* Effect.promise(() => request(plugin.socket, path, sent))
            const answer = JSON.parse(text) as {
              readonly Err?: string
              readonly PortBindings?: ReadonlyArray<Plugin.WireBinding>
            }
            const told =
              status !== 200
                ? `${status} ${answer.Err}`
                : answer.PortBindings === undefined
                  ? "done"
                  : answer.PortBindings.map((binding) =>
                      binding.DiscardReq ? `discarded: ${binding.Error}` : `granted ${binding.FrontendPort}`
                    )
            if (path === "/PortMapper.MapPorts" && status === 200) {
              const before = (JSON.parse(answered.body) as { readonly PortBindings: ReadonlyArray<Entry> })
                .PortBindings
              answer.PortBindings?.forEach((binding, index) => {
                const recordedPort = before[index]?.FrontendPort ?? 0
                if (recordedPort > 40000) granted.set(recordedPort, binding.FrontendPort)
                if (!binding.DiscardReq)
                  live.set(keyOf(binding), {
                    entry: binding,
                    socket: socketOf(binding, answer.PortBindings ?? [])
                  })
              })
            }
            if (path === "/PortMapper.UnmapPorts" && status === 200)
              for (const binding of (JSON.parse(sent) as { readonly PortBindings: ReadonlyArray<Entry> })
                .PortBindings)
                live.delete(keyOf(binding))
            const wanted = answers[step - 1]
            if (wanted instanceof RegExp) assert.match(String(told), wanted, title)
            else assert.deepStrictEqual(told, wanted, title)
            if (scenario !== "unmap500" || step < 3) yield* compareHost(title)
          }
          if (scenario === "unmap500") {
            nft.relent()
            yield* host.check("nft", ["delete", "table", "inet", "portmapper"])
            yield* waitForRepair(host, live.size)
          }
        }
      }),
    120_000
  )
})
