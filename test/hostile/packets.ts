/**
 * Attacks by packets on a real plugin in a lab of its own. Each returns what got through, a line each: nothing where the
 * plugin holds. Fails where the lab can't be set up, or the same port does not serve whom it should.
 */
import { Effect, type Scope } from "effect"
import type { AgentError } from "../lab/Agent.ts"
import * as Lab from "../lab/Lab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { LabError } from "../lab/Process.ts"

export type Attack = Effect.Effect<ReadonlyArray<string>, LabError | AgentError, Scope.Scope>

const must = (what: string, holds: boolean): Effect.Effect<void, LabError> =>
  holds ? Effect.void : Effect.fail(new LabError({ operation: what, detail: "it does not" }))

/** Addresses that are nobody's alone; the last one is the broadcast address of a bridge, sent to the host as a router. */
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
    (address) => client.agent.udp({ host: address, port: 8080, unconnected: true }),
    { concurrency: "unbounded" }
  )
  const answers = asked.flatMap(({ replies }, index) =>
    replies.map(({ from }) => `${nobodys[index]} is answered from ${from.address}`)
  )
  const flows = (yield* connections(plugin)) - own.length
  return flows === 0 ? answers : [...answers, `${flows} flows to the container begin`]
})

/** Of all mappings, as the plugin lists them. */
const connections = (plugin: Plugin.Plugin): Effect.Effect<number, LabError> =>
  Effect.map(plugin.call("ListPorts", {}), ({ body }) => {
    const { Mappings } = JSON.parse(body) as { readonly Mappings: ReadonlyArray<{ Connections: number }> }
    return Mappings.reduce((sum, { Connections }) => sum + Connections, 0)
  })

/** A mark of every bit, on a neighbour's packets that a rule of another's redirects back to the neighbour's bridge. */
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
  yield* c2.agent.tcp({ host: "172.31.0.1", port: 7003 })
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
