/** Real packets through the real plugin: mapped ports are reached; unmapping leaves nothing. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents, tables } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { descriptorKinds, listening } from "../lab/Probe.ts"
import { silenceMillis } from "../lab/patience.ts"

const protocols = ["tcp", "udp"] as const
const families = [
  {
    family: 4,
    any: "0.0.0.0",
    backend: "172.31.0.2",
    host: "10.99.0.1",
    client: "10.99.0.2"
  },
  { family: 6, any: "::", backend: "fd66::2", host: "fd99::1", client: "fd99::2" }
] as const

const bracketed = (address: string) => (address.includes(":") ? `[${address}]` : address)

/** Echo servers on port 80 of c1, both protocols, both families. */
const echoes = (c1: Namespace) =>
  Effect.forEach(protocols, (protocol) =>
    Effect.forEach(["0.0.0.0", "::"], (host) => c1.agent.echo({ protocol, host, port: 80 }))
  )

const silence = { timeoutMillis: silenceMillis }

/** `answered c1 FROM`, with the source that the backend saw, or the outcome instead. */
const ask = (
  from: Namespace,
  protocol: "tcp" | "udp",
  host: string,
  port: number,
  patience: { readonly timeoutMillis?: number } = {}
) =>
  protocol === "tcp"
    ? Effect.map(from.agent.tcp({ host, port, close: "reset", ...patience }), ({ outcome, answer }) =>
        answer === undefined ? outcome : `${outcome} ${answer.who} ${answer.seen?.address}`
      )
    : Effect.map(from.agent.udp({ host, port, ...patience }), ({ outcome, replies }) =>
        replies[0] === undefined ? outcome : `${outcome} ${replies[0].who} ${replies[0].seen?.address}`
      )

/** The ports that may be granted for each requested port; the system's own range is the kernel's default. */
const within: Readonly<Record<string, (port: number) => boolean>> = {
  "8080": (port) => port === 8080,
  "8100-8110": (port) => port >= 8100 && port <= 8110,
  "0": (port) => port >= 32768 && port <= 60999
}

describeLab("published ports in nat mode", [], () => {
  it.live("are reached through an exact, a ranged and an ephemeral port, and unmapping leaves nothing", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* echoes(c1)
      const plugin = yield* Plugin.start(host)
      // The relay's thread and the filters of either family are made for the first route, and stay.
      const first = ["tcp 0.0.0.0:9999 172.31.0.2:80", "tcp [::]:9999 [fd66::2]:80"]
      yield* plugin.unmap((yield* plugin.map(first)).bindings)
      const before = {
        descriptors: yield* descriptorKinds(plugin.process.pid),
        sockets: yield* listening(host, { pid: plugin.process.pid })
      }
      for (const { any, backend, host: address, client: source } of families)
        for (const protocol of protocols)
          for (const port of ["8080", "8100-8110", "0"]) {
            const title = `${protocol} ${any}:${port}`
            const mapped = yield* plugin.map([
              `${protocol} ${bracketed(any)}:${port} ${bracketed(backend)}:80`
            ])
            assert.strictEqual(mapped.status, 200, mapped.error)
            const [binding] = mapped.bindings
            const granted = binding?.FrontendPort ?? 0
            assert.isTrue(within[port]?.(granted), `${title} got ${granted}`)
            assert.deepInclude(binding, {
              DiscardReq: false,
              AllowForwarding: true,
              NAT: null,
              Error: null
            })
            assert.strictEqual(yield* ask(client, protocol, address, granted), `answered c1 ${source}`, title)
            assert.strictEqual((yield* plugin.unmap(mapped.bindings)).status, 200)
            assert.deepStrictEqual(yield* contents(host), {})
            assert.notMatch(yield* ask(client, protocol, address, granted), /^answered/, title)
            assert.notMatch(yield* ask(host, protocol, address, granted), /^answered/, title)
          }
      assert.deepStrictEqual(
        {
          descriptors: yield* descriptorKinds(plugin.process.pid),
          sockets: yield* listening(host, { pid: plugin.process.pid })
        },
        before
      )
      assert.deepStrictEqual(yield* tables(host), ["inet portmapper", "inet portmapper-lock"])
    })
  )

  it.live("accept no handshake by a placeholder", () =>
    Effect.gen(function* () {
      const { host, client } = yield* Lab.make()
      const plugin = yield* Plugin.start(host, { arguments: ["--mode", "engine"] })
      const mapped = yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80", "udp 0.0.0.0:8080 172.31.0.2:80"])
      assert.deepStrictEqual(
        mapped.bindings.map(({ NAT, AllowForwarding }) => ({ NAT, AllowForwarding })),
        [1, 2].map(() => ({ NAT: { FromAddr: "0.0.0.0", FromPort: 8080 }, AllowForwarding: true }))
      )
      const { outcome, connected } = yield* client.agent.tcp({ host: "10.99.0.1", port: 8080, ...silence })
      assert.deepStrictEqual({ outcome, connected }, { outcome: "timeout", connected: false })
      assert.strictEqual(yield* ask(client, "udp", "10.99.0.1", 8080, silence), "timeout")
      yield* plugin.unmap(mapped.bindings)
      assert.strictEqual(yield* ask(client, "tcp", "10.99.0.1", 8080), "refused")
    })
  )

  it.live(
    "are refused for a port of another process and of another mapping with different texts, and leave nothing",
    () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const plugin = yield* Plugin.start(host)
        yield* host.agent.hold({ protocol: "tcp", host: "::", port: 8300 })
        yield* plugin.map(["tcp 0.0.0.0:8301 172.31.0.2:80"])
        const before = { sockets: yield* listening(host), table: yield* contents(host) }
        const inUse = yield* plugin.map(["tcp 0.0.0.0:8300 172.31.0.3:80", "tcp [::]:8300 [fd66::3]:80"])
        assert.deepStrictEqual(inUse, {
          status: 500,
          error: "bind for [::]:8300/tcp failed: address already in use",
          bindings: []
        })
        const allocated = yield* plugin.map(["tcp 10.99.0.1:8301 172.31.0.3:80"])
        assert.strictEqual(allocated.status, 500)
        assert.match(
          allocated.error,
          /^bind for 10\.99\.0\.1:8301\/tcp failed: port is already allocated \(held by engine for 172\.31\.0\.2 port 80 since \S+; if that container is gone: portmapper unmap -p 0\.0\.0\.0:8301\/tcp --owner any\)$/
        )
        const notOurs = yield* plugin.map(["tcp 10.1.2.3:8302 172.31.0.3:80"])
        assert.strictEqual(
          notOurs.error,
          "bind for 10.1.2.3:8302/tcp failed: cannot assign requested address"
        )
        assert.deepStrictEqual({ sockets: yield* listening(host), table: yield* contents(host) }, before)
      })
  )

  it.live("carry the accepted mark on every packet, and no other packets do", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", port: 80 })
      const plugin = yield* Plugin.start(host, { arguments: ["--accept-fwmark", "0x1000000/0x1000000"] })
      // An Engine's filter: it forwards into the bridge only established traffic and packets with the mark.
      yield* host.check("nft", ["-f", "-"], {
        input: `table inet engine {
  chain forward {
    type filter hook forward priority 0; policy accept;
    oifname br0 ct state established,related accept
    oifname br0 meta mark & 0x1000000 == 0x1000000 counter accept
    oifname br0 drop
  }
}
`
      })
      const mapped = yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80", "udp 0.0.0.0:8080 172.31.0.2:99"])
      assert.deepStrictEqual(
        mapped.bindings.map(({ AllowForwarding }) => AllowForwarding),
        [false, false]
      )
      assert.strictEqual(yield* ask(client, "tcp", "10.99.0.1", 8080), "answered c1 10.99.0.2")
      assert.strictEqual(yield* ask(client, "tcp", "172.31.0.2", 80, silence), "timeout")
      // A flow without an answer stays new: each of its packets needs the mark.
      yield* c1.agent.hold({ protocol: "udp", port: 99 })
      const counted = () =>
        Effect.map(host.check("nft", ["list", "table", "inet", "engine"]), (text) =>
          Number(/counter packets (\d+)/.exec(text)?.[1])
        )
      const first = yield* counted()
      yield* client.agent.udp({
        host: "10.99.0.1",
        port: 8080,
        rounds: 3,
        timeoutMillis: 100,
        sourcePort: 5000
      })
      assert.strictEqual((yield* counted()) - first, 3)
    })
  )
})
