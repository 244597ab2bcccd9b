/** Attacks on the relay's descriptors: floods of clients, and mappings that lead to themselves. */
import { Effect } from "effect"
import type { AgentError } from "../lab/Agent.ts"
import { flood } from "../lab/Flood.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { type Attack, eventually, mapAgain, must, sample } from "./Attack.ts"

export interface Flood {
  /** The hard limit of the plugin's descriptors; `undefined` keeps the machine's own. */
  readonly limit: number | undefined
  readonly connections: number
  readonly sources: number
}

const ports = { idle: 8080, packets: 8081, used: 8082 }

/** Floods one relayed port with idle TCP connections and another with UDP from many sources; a third is in use. */
export const floodRelay = ({ limit, connections, sources }: Flood, note: (text: string) => void): Attack =>
  Effect.gen(function* () {
    const { host, client, c1 } = yield* Lab.make()
    for (const protocol of ["tcp", "udp"] as const) yield* c1.agent.echo({ protocol, port: 80 })
    const plugin = yield* Plugin.start(host, {
      arguments: ["--udp-idle", "2s"],
      wrapper: limit === undefined ? [] : ["prlimit", `--nofile=${limit}:${limit}`]
    })
    const answers = (name: keyof typeof ports, timeoutMillis = 10_000) => {
      const wanted = { host: "fd99::1", port: ports[name], timeoutMillis }
      const asked: Effect.Effect<{ readonly outcome: string }, AgentError> =
        name === "packets" ? client.agent.udp(wanted) : client.agent.tcp(wanted)
      return Effect.map(asked, ({ outcome }) => outcome === "answered")
    }
    for (const name of ["idle", "packets", "used"] as const) {
      yield* plugin.map([`${name === "packets" ? "udp" : "tcp"} [::]:${ports[name]} 172.31.0.2:80`])
      yield* must(`the relay serves port ${ports[name]}`, yield* answers(name))
    }
    const before = yield* sample(plugin, "process_open_fds")
    const most = yield* sample(plugin, "process_max_fds")
    const send = (protocol: "tcp" | "udp", port: number, count: number) =>
      flood(client, { protocol, host: "fd99::1", port, count })
    const floods = [yield* send("udp", ports.packets, sources), yield* send("tcp", ports.idle, connections)]
    for (const { sent } of floods) yield* sent
    const through: Array<string> = []
    // A connection takes two descriptors.
    for (const [protocol, wanted] of [
      ["tcp", 2 * connections],
      ["udp", sources]
    ] as const) {
      const refusals = sample(plugin, `portmapper_relay_budget_refusals_total{protocol="${protocol}"}`)
      if (wanted > most && !(yield* eventually(Effect.map(refusals, (count) => count > 0))))
        through.push(`no ${protocol} flow is counted as refused`)
    }
    floods.push(yield* send("udp", ports.packets, sources))
    const mapped = yield* mapAgain(plugin, 5)
    through.push(...mapped.failures)
    for (let turn = 0; turn < 3; turn++)
      if (!(yield* answers("used"))) through.push("a third relayed port does not echo")
    const used = yield* sample(plugin, "process_open_fds")
    note(`${used} of ${most} descriptors in use, MapPorts in ${mapped.slowest} ms`)
    const isReached = 2 * connections > most
    const logged = (text: string) =>
      plugin.process.lines("stderr").filter((line) => line.includes(`descriptors ${text}`)).length
    if (logged("run short") !== (isReached ? 1 : 0) || logged("suffice again") > 0)
      through.push(
        `the log says ${logged("run short")} times that descriptors run short, ${logged("suffice again")} times that they suffice`
      )
    for (const { stop } of floods) yield* stop
    for (const name of ["idle", "packets", "used"] as const)
      if (!(yield* eventually(answers(name, 1000)))) through.push(`port ${ports[name]} is not back after it`)
    through.push(...(yield* leftOver(plugin, before)))
    return through
  })

/** Floods the plugin's own TCP port with idle connections. */
export const floodOwnPort: Attack = Effect.gen(function* () {
  const { host } = yield* Lab.make()
  const folder = yield* Plugin.temporaryFolder
  const plugin = yield* Plugin.start(host, {
    folder,
    wrapper: ["prlimit", "--nofile=512:512"],
    arguments: ["--tcp", "127.0.0.1:7000", "--spec-dir", folder]
  })
  yield* mapAgain(plugin, 1)
  const before = yield* sample(plugin, "process_open_fds")
  const idle = yield* flood(host, { protocol: "tcp", host: "127.0.0.1", port: 7000, count: 600 })
  yield* idle.sent
  const taken = (yield* sample(plugin, "process_open_fds")) - before
  const { failures } = yield* mapAgain(plugin, 3)
  yield* idle.stop
  const payload = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:7000\r\n\r"
  const isBack = Effect.map(host.agent.tcp({ host: "127.0.0.1", port: 7000, payload }), ({ answer }) =>
    /^HTTP\/1.1 200/.test(answer?.text ?? "")
  )
  return [
    ...failures,
    ...(taken <= 40 ? [] : [`it takes ${taken} descriptors`]),
    ...((yield* eventually(isBack)) ? [] : ["the port is not back after it"]),
    ...(yield* leftOver(plugin, before))
  ]
})

const leftOver = (plugin: Plugin.Plugin, before: number) =>
  Effect.gen(function* () {
    const isBack = Effect.map(sample(plugin, "process_open_fds"), (count) => count <= before + 8)
    return (yield* eventually(isBack)) ? [] : ["descriptors are not given back"]
  })

/** Maps the host's own addresses, alone and in a circle of two, by TCP and UDP. */
export const mapToItself: Attack = Effect.gen(function* () {
  const { host, client, c1 } = yield* Lab.make()
  yield* c1.agent.echo({ protocol: "tcp", port: 80 })
  const plugin = yield* Plugin.start(host, { arguments: ["--mode", "proxy"] })
  const through: Array<string> = []
  for (const protocol of ["tcp", "udp"]) {
    const { status, error } = yield* plugin.map([`${protocol} 0.0.0.0:8080 127.0.0.1:8080`])
    if (status !== 400 || !error.includes("must be another port"))
      through.push(`${protocol} to 127.0.0.1: ${status} ${error}`)
  }
  for (const protocol of ["tcp", "udp"])
    for (const [port, to] of loops) yield* plugin.map([`${protocol} 0.0.0.0:${port} 10.99.0.1:${to}`])
  yield* plugin.map(["tcp 0.0.0.0:9000 172.31.0.2:80"])
  yield* must(
    "the relay serves",
    (yield* client.agent.tcp({ host: "10.99.0.1", port: 9000 })).outcome === "answered"
  )
  const count = sample(plugin, "process_open_fds")
  const before = yield* count
  for (const [port] of loops)
    for (const ask of [client.agent.tcp, client.agent.udp])
      yield* ask({ host: "10.99.0.1", port, timeoutMillis: 300 })
  const packets = Effect.map(host.sh("cat /sys/class/net/lo/statistics/rx_packets"), Number)
  const isQuiet = Effect.gen(function* () {
    const earlier = yield* packets
    yield* Effect.sleep(300)
    return (yield* packets) === earlier
  })
  if (!(yield* eventually(isQuiet))) through.push("the relay goes on sending to itself")
  // The relay keeps a UDP flow for a while.
  const most = before + 4 * loops.length
  if ((yield* count) > most)
    through.push(`${yield* count} descriptors are in use after it, ${before} were before`)
  const { outcome } = yield* client.agent.tcp({ host: "10.99.0.1", port: 9000, timeoutMillis: 5000 })
  return outcome === "answered" ? through : [...through, "another relayed port does not echo"]
})

const loops = [
  [8081, 8081],
  [8082, 8083],
  [8083, 8082]
] as const
