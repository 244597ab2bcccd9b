/** Attacks by packets of neighbours, containers and other processes on the host. */
import { Effect } from "effect"
import type { TcpRequest } from "../lab/AgentProtocol.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import type { LabError } from "../lab/Process.ts"
import { silenceMillis } from "../lab/patience.ts"
import type { Running } from "../lab/Running.ts"
import { type Attack, must } from "./Attack.ts"

/** Addresses that no single host has; the last is the broadcast address of a bridge, sent to the host as a router. */
const nobodys = ["255.255.255.255", "10.99.0.255", "224.0.0.1", "ff02::1%eth0", "172.31.0.255"]

/** Datagrams to broadcast and multicast addresses, at a port that the relay serves on all addresses. */
export const shoutAtRelay: Attack = Effect.gen(function* () {
  const { host, client, c1 } = yield* Lab.make()
  yield* c1.agent.echo({ protocol: "udp", port: 80 })
  const plugin = yield* Plugin.start(host, { arguments: ["--mode", "proxy"] })
  yield* plugin.map(["udp 0.0.0.0:8080 172.31.0.2:80", "udp [::]:8080 172.31.0.2:80"])
  const own = ["10.99.0.1", "172.31.0.1", "fd99::1"]
  for (const address of own) {
    const { outcome } = yield* client.agent.udp({ host: address, port: 8080 })
    yield* must(`the relay answers ${address}`, outcome === "answered")
  }
  const asked = yield* Effect.forEach(
    nobodys,
    (address) =>
      client.agent.udp({ host: address, port: 8080, unconnected: true, timeoutMillis: silenceMillis }),
    { concurrency: "unbounded" }
  )
  const answers = asked.flatMap(({ replies }, index) =>
    replies.map(({ from }) => `${nobodys[index]} is answered from ${from.address}`)
  )
  const flows = (yield* connections(plugin)) - own.length
  return flows === 0 ? answers : [...answers, `${flows} flows to the container begin`]
})

/** Summed over all mappings in the plugin's list. */
const connections = (plugin: Plugin.Plugin): Effect.Effect<number, LabError> =>
  Effect.map(plugin.call("ListPorts", {}), ({ body }) => {
    const { Mappings } = JSON.parse(body) as { readonly Mappings: ReadonlyArray<{ Connections: number }> }
    return Mappings.reduce((sum, { Connections }) => sum + Connections, 0)
  })

/** Connections to the plugin's own port on a loopback address, from a neighbour and from a container, where the host routes them. */
export const knockAtOwnPort: Attack = Effect.gen(function* () {
  const { host, client, c1 } = yield* Lab.make({ hostSysctls: { "net.ipv4.conf.all.route_localnet": "1" } })
  for (const [from, router] of [
    [client, "10.99.0.1"],
    [c1, "172.31.0.1"]
  ] as const)
    yield* from.sh(
      `echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip address flush dev lo; ip route replace 127.0.0.1 via ${router}`
    )
  const folder = yield* Plugin.temporaryFolder
  const serve = ["--tcp", "127.0.0.1:7000", "--spec-dir", folder]
  const plugin = yield* Plugin.start(host, { folder, arguments: serve })
  yield* host.agent.echo({ protocol: "tcp", host: "127.0.0.1", port: 7001 })
  const knock = (from: Namespace, request: Omit<TcpRequest, "host">) =>
    Effect.map(from.agent.tcp({ host: "127.0.0.1", ...request }), ({ connected }) => connected)
  const outsiders = { client: [client, "10.99.0.2"], c1: [c1, "172.31.0.2"] } as const
  const through: Array<string> = []
  const knockAll = Effect.fnUntraced(function* (when: string) {
    yield* must("the host reaches the plugin", yield* knock(host, { port: 7000 }))
    for (const [name, [from, sourceAddress]] of Object.entries(outsiders)) {
      yield* must(`${name} reaches another port`, yield* knock(from, { port: 7001, sourceAddress }))
      const isThrough = yield* knock(from, { port: 7000, sourceAddress, timeoutMillis: silenceMillis })
      if (isThrough) through.push(`${name} connects ${when}`)
    }
  })
  yield* knockAll("after a start")
  yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
  yield* Plugin.start(host, { folder, arguments: ["--takeover", ...serve] })
  yield* knockAll("after a takeover")
  return through
})

/** A mark with every bit, on a neighbour's packets that another program's rule redirects back to its bridge. */
export const borrowMark: Attack = Effect.gen(function* () {
  const { host, client, c1, c2 } = yield* Lab.make()
  yield* c1.agent.echo({ protocol: "tcp", port: 80 })
  const plugin = yield* Plugin.start(host, { arguments: ["--accept-fwmark", "0x5000/0xf000"] })
  yield* host.check("nft", ["-f", "-"], {
    input: `table inet others {
      chain marking { type filter hook prerouting priority mangle; tcp dport { 7003, 8080 } meta mark set 0xffffffff; }
      chain leading { type nat hook prerouting priority dstnat; tcp dport 7003 dnat ip to 172.31.0.2:80; }
      chain leaving {
        type filter hook postrouting priority 300
        tcp dport 80 ct original proto-dst 7003 meta mark != 0xffffffff counter
        tcp dport 80 ct original proto-dst 7003 ip saddr != 172.31.0.3 counter
        tcp dport 80 ct original proto-dst 8080 meta mark != 0xffff5fff ct state new counter
        tcp dport 80 ct original proto-dst 7003 counter
      }
    }`
  })
  yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
  const { answer } = yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })
  yield* must("the client is known by its own address", answer?.seen?.address === "10.99.0.2")
  yield* c2.agent.tcp({ host: "172.31.0.1", port: 7003, timeoutMillis: silenceMillis })
  const listed = yield* host.check("nft", ["list", "chain", "inet", "others", "leaving"])
  const [marked = 0, masqueraded = 0, own = 0, all = 0] = [...listed.matchAll(/packets (\d+)/g)].map(
    ([, packets]) => Number(packets)
  )
  yield* must("the other's rule redirects", all > 0)
  return [
    ...(marked > 0 ? ["another's packet loses its mark"] : []),
    ...(masqueraded > 0 ? ["another's redirection is masqueraded"] : []),
    ...(own > 0 ? ["bits beside the accept mark's are changed"] : [])
  ]
})

/**
 * Established flows of a client that a narrowed allow-list no longer admits, while the backend goes on sending. The host
 * masquerades what containers send, as an Engine's does, so that the backend's next packet could take the old flow's place.
 */
export const outliveNarrowing: Attack = Effect.gen(function* () {
  const { host, client, c1, get } = yield* Lab.make({ secondClient: true })
  yield* host.check("nft", ["-f", "-"], {
    input: `table inet engine {
      chain postrouting { type nat hook postrouting priority srcnat; iifname br0 oifname != br0 masquerade; }
    }`
  })
  const plugin = yield* Plugin.start(host, { arguments: ["--mode", "nat"] })
  const entries = [
    "tcp 0.0.0.0:8080 172.31.0.2:8080",
    "udp 0.0.0.0:8080 172.31.0.2:8080",
    "tcp [::]:8080 [fd66::2]:8080",
    "udp [::]:8080 [fd66::2]:8080"
  ]
  const map = (labels: Record<string, string>) =>
    Effect.flatMap(
      Effect.forEach(entries, (entry) => plugin.map([entry], labels)),
      (answers) =>
        must(
          "the plugin maps",
          answers.every(({ status }) => status === 200)
        )
    )
  yield* map({})
  yield* streamer(c1)
  const refused = yield* Effect.forEach(["10.99.0.1", "fd99::1"], (to) => listen(client, to))
  const admitted = yield* Effect.forEach(["10.98.0.1", "fd98::1"], (to) => listen(get("client2"), to))
  yield* progress([...refused.flat(), ...admitted.flat()])
  yield* map({ "portmapper.allow": "10.98.0.0/24,fd98::/64" })
  // Packets on their way may still arrive.
  yield* progress(admitted.flat())
  const before = refused.flat().map(({ received }) => received())
  yield* progress(admitted.flat())
  yield* progress(admitted.flat())
  const more = refused.flat().map(({ received }, index) => received() - (before[index] ?? 0))
  yield* map({})
  // A source that is admitted again is served again, from the same port too.
  yield* progress(refused.flat().filter(({ name }) => name.startsWith("udp")))
  return refused
    .flat()
    .flatMap(({ name }, index) => (more[index] === 0 ? [] : [`${name} goes on: ${more[index]} lines more`]))
})

interface Listener {
  readonly name: string
  readonly received: () => number
  readonly process: Running
}

/** A backend on port 8080 that sends a line every 10 ms to each client that connected or sent it a datagram. */
const streamer = (backend: Namespace) =>
  Effect.flatMap(
    backend.spawn(process.execPath, [
      "-e",
      `const net = require("node:net"), dgram = require("node:dgram")
       const server = net.createServer((socket) => {
         socket.on("error", () => {}).resume()
         setInterval(() => socket.write("tick\\n"), 10)
       })
       const udp = dgram.createSocket("udp6").on("error", () => {})
       const peers = new Set()
       udp.on("message", (_, { port, address }) => {
         if (peers.has(address + port)) return
         peers.add(address + port)
         setInterval(() => udp.send("tick", port, address, () => {}), 10)
       })
       udp.bind(8080, "::", () => server.listen(8080, "::", () => console.log("serving")))`
    ]),
    (running) => running.waitForLine("serving")
  )

/** Two clients, by TCP and by UDP, that keep sending as well, and print what they receive. */
const listen = (from: Namespace, host: string) =>
  Effect.forEach(["tcp", "udp"] as const, (protocol) =>
    Effect.map(
      from.spawn(process.execPath, [
        "-e",
        `const net = require("node:net"), dgram = require("node:dgram")
         const received = () => console.log("received")
         if ("${protocol}" === "tcp") {
           const socket = net.connect(8080, "${host}").on("error", () => {}).on("data", received)
           setInterval(() => socket.write("more"), 10)
         } else {
           const socket = dgram.createSocket("${host}".includes(":") ? "udp6" : "udp4").on("message", received)
           socket.on("error", () => {})
           socket.send("begin", 8080, "${host}")
           setInterval(() => socket.send("more", 8080, "${host}"), 1000)
         }`
      ]),
      (running): Listener => ({
        name: `${protocol} by ${host}`,
        received: () => running.lines("stdout").length,
        process: running
      })
    )
  )

/** Until each has received more. */
const progress = (listeners: ReadonlyArray<Listener>) =>
  Effect.forEach(listeners, ({ received, process }) =>
    process.waitForLine("received", { stream: "stdout", after: received() + 30, timeoutMillis: 20_000 })
  )
