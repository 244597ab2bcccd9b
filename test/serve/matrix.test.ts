/**
 * Every kind of traffic to a published port: protocol, the client's place, family of the frontend, family of the
 * backend, mode. Each cell is tried with a payload in both directions, and printed.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"

const frontends = {
  4: {
    any: "0.0.0.0",
    address: "10.99.0.1",
    bridge: "172.31.0.1",
    loopback: "127.0.0.1",
    client: "10.99.0.2"
  },
  6: { any: "[::]", address: "fd99::1", bridge: "fd66::1", loopback: "::1", client: "fd99::2" }
} as const
const backends = { 4: "172.31.0.2", 6: "[fd66::2]" } as const
const families = [4, 6] as const

interface Place {
  readonly name: string
  readonly from: (lab: Lab.Lab) => Namespace
  readonly to: (family: 4 | 6) => string
  /** The client's address; the system's choice if omitted. */
  readonly by?: (family: 4 | 6) => string
}

const places: ReadonlyArray<Place> = [
  { name: "outside", from: ({ client }) => client, to: (family) => frontends[family].address },
  { name: "neighbour", from: ({ c2 }) => c2, to: (family) => frontends[family].bridge },
  { name: "same container", from: ({ c1 }) => c1, to: (family) => frontends[family].address },
  { name: "same container, by its gateway", from: ({ c1 }) => c1, to: (family) => frontends[family].bridge },
  { name: "host by address", from: ({ host }) => host, to: (family) => frontends[family].address },
  {
    name: "host by address, from loopback",
    from: ({ host }) => host,
    to: (family) => frontends[family].address,
    by: (family) => frontends[family].loopback
  },
  { name: "host by loopback", from: ({ host }) => host, to: (family) => frontends[family].loopback },
  {
    name: "host by loopback, from another address",
    from: ({ host }) => host,
    to: (family) => frontends[family].loopback,
    by: (family) => frontends[family].address
  }
]

const payload = "there and back"

const silence = { timeoutMillis: silenceMillis }

const exchange = (from: Namespace, protocol: "tcp" | "udp", host: string, port: number, more = {}) =>
  protocol === "tcp"
    ? Effect.map(from.agent.tcp({ host, port, payload, ...more }), ({ outcome, answer }) => ({
        outcome,
        payload: answer?.payload,
        source: answer?.seen?.address
      }))
    : Effect.map(from.agent.udp({ host, port, payload, rounds: 2, ...more }), ({ outcome, replies }) => ({
        outcome,
        payload: replies.at(-1)?.payload,
        source: replies.at(-1)?.seen?.address
      }))

/** The host accepts packets to 127.0.0.2 from outside, and the client sends them. */
const outsidersRoute = Effect.fnUntraced(function* (host: Namespace, client: Namespace) {
  yield* host.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1")
  yield* client.sh(
    `sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.route_localnet=1
      ip route flush table local 127.0.0.0/8
      ip route add 127.0.0.2/32 via 10.99.0.1 dev eth0 src 10.99.0.2`
  )
})

describeLab("every kind of traffic to a published port", ["sysctl"], () => {
  for (const mode of ["nat", "proxy"] as const)
    it.live(`reaches its backend in ${mode} mode`, () =>
      Effect.gen(function* () {
        const lab = yield* Lab.make({ bridgeNetfilter: true })
        for (const host of ["0.0.0.0", "::"]) {
          yield* lab.c1.agent.echo({ protocol: "tcp", host, port: 80 })
          yield* lab.c1.agent.echo({ protocol: "udp", host, port: 80 })
        }
        const plugin = yield* Plugin.start(lab.host, { arguments: ["--mode", mode] })
        const table: Array<string> = []
        let port = 8000
        for (const protocol of ["tcp", "udp"] as const)
          for (const frontend of families)
            for (const backend of families) {
              port++
              const mapped = yield* plugin.map([
                `${protocol} ${frontends[frontend].any}:${port} ${backends[backend]}:80`
              ])
              assert.strictEqual(mapped.status, 200, mapped.error)
              assert.isFalse(mapped.bindings[0]?.DiscardReq)
              for (const { name, from, to, by } of places) {
                const cell = `${protocol} IPv${frontend} to IPv${backend}, ${name}`
                const client = by === undefined ? {} : { sourceAddress: by(frontend) }
                const seen = yield* exchange(from(lab), protocol, to(frontend), port, client)
                assert.strictEqual(seen.outcome, "answered", `${mode}: ${cell}`)
                assert.strictEqual(seen.payload, payload, `${mode}: ${cell}`)
                const redirected = mode === "nat" && frontend === backend
                if (name === "outside" && redirected)
                  assert.strictEqual(seen.source, frontends[frontend].client, `source kept: ${cell}`)
                table.push(`${cell.padEnd(58)}works, backend sees ${seen.source}`)
              }
              assert.strictEqual((yield* plugin.unmap(mapped.bindings)).status, 200)
              const after = yield* exchange(lab.client, protocol, frontends[frontend].address, port, silence)
              assert.notStrictEqual(after.outcome, "answered", `${mode}: ${protocol} after unmapping`)
            }
        console.log(`mode ${mode}\n  ${table.join("\n  ")}`)
      })
    )

  it.live("over UDP is refused at once where the container refuses it and the relay serves it", () =>
    Effect.gen(function* () {
      const lab = yield* Lab.make()
      // By default a kernel sends one peer a refusal a second.
      yield* lab.c1.sh("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
      const plugin = yield* Plugin.start(lab.host, { arguments: ["--mode", "proxy"] })
      let port = 8000
      for (const frontend of families)
        for (const backend of families) {
          const { any, address } = frontends[frontend]
          for (const host of [any, frontend === 4 ? address : `[${address}]`]) {
            port++
            yield* plugin.map([`udp ${host}:${port} ${backends[backend]}:80`])
            for (const { name, from, to, by } of places)
              if (host === any || to(frontend) === address) {
                const client = by === undefined ? {} : { sourceAddress: by(frontend) }
                const { outcome } = yield* exchange(from(lab), "udp", to(frontend), port, client)
                assert.strictEqual(outcome, "refused", `${host} to IPv${backend}, ${name}`)
              }
          }
        }
    })
  )

  it.live("on one address of the host reaches its backend from the backend and from loopback, too", () =>
    Effect.gen(function* () {
      const lab = yield* Lab.make({ bridgeNetfilter: true })
      const plugin = yield* Plugin.start(lab.host)
      for (const family of families) {
        const { address, loopback } = frontends[family]
        for (const protocol of ["tcp", "udp"] as const) {
          yield* lab.c1.agent.echo({ protocol, host: family === 4 ? "0.0.0.0" : "::", port: 80 })
          const frontend = family === 4 ? address : `[${address}]`
          yield* plugin.map([`${protocol} ${frontend}:8080 ${backends[family]}:80`])
          for (const [from, more] of [
            [lab.client, {}],
            [lab.c2, {}],
            [lab.c1, {}],
            [lab.host, {}],
            [lab.host, { sourceAddress: loopback }]
          ] as const) {
            const { outcome } = yield* exchange(from, protocol, address, 8080, more)
            assert.strictEqual(outcome, "answered", `${protocol} ${address} from ${from.role}`)
          }
        }
      }
    })
  )

  it.live("reaches a backend on a loopback address of the host from everywhere in nat mode", () =>
    Effect.gen(function* () {
      const lab = yield* Lab.make({ bridgeNetfilter: true })
      const plugin = yield* Plugin.start(lab.host, { arguments: ["--mode", "nat"] })
      for (const family of families) {
        const { any, loopback } = frontends[family]
        for (const protocol of ["tcp", "udp"] as const) {
          yield* lab.host.agent.echo({ protocol, host: loopback, port: 9090 })
          const backend = family === 4 ? loopback : `[${loopback}]`
          yield* plugin.map([`${protocol} ${any}:8080 ${backend}:9090`])
          for (const { name, from, to, by } of places) {
            const client = by === undefined ? {} : { sourceAddress: by(family) }
            const { outcome } = yield* exchange(from(lab), protocol, to(family), 8080, client)
            assert.strictEqual(outcome, "answered", `${protocol} over IPv${family}, ${name}`)
          }
        }
      }
    })
  )

  it.live("is not claimed on [::] where the host's IPv6 is disabled", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const claimed = Effect.fnUntraced(function* () {
        const plugin = yield* Plugin.start(host, { arguments: ["--release-on-exit"] })
        const { bindings } = yield* plugin.map([
          "tcp 0.0.0.0:8080 172.31.0.2:80",
          "tcp [::]:8080 172.31.0.2:80"
        ])
        const listed = yield* plugin.call("ListPorts", {})
        yield* plugin.process.kill("SIGTERM")
        yield* plugin.process.wait()
        return {
          answered: bindings.flatMap(({ FrontendIP, DiscardReq }) => (DiscardReq ? [] : [FrontendIP])),
          listed: [...listed.body.matchAll(/"FrontendIP":"([^"]*)"/g)].map(([, address]) => address).sort()
        }
      })
      const both4and6 = ["0.0.0.0", "::"]
      assert.deepStrictEqual(yield* claimed(), { answered: both4and6, listed: both4and6 })
      yield* host.sh("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
      assert.deepStrictEqual(yield* claimed(), { answered: ["0.0.0.0"], listed: ["0.0.0.0"] })
      // One interface has IPv6 again.
      yield* host.sh("sysctl -qw net.ipv6.conf.lo.disable_ipv6=0")
      assert.deepStrictEqual(yield* claimed(), { answered: both4and6, listed: both4and6 })
    })
  )

  it.live("on all addresses is not reached by an outsider's route to a loopback address", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* outsidersRoute(host, client)
      const plugin = yield* Plugin.start(host)
      for (const protocol of ["tcp", "udp"] as const) {
        yield* c1.agent.echo({ protocol, port: 80 })
        yield* plugin.map([`${protocol} 0.0.0.0:8080 172.31.0.2:80`])
        const outside = yield* exchange(client, protocol, "127.0.0.2", 8080, silence)
        assert.notStrictEqual(outside.outcome, "answered")
        const inside = { sourceAddress: "10.99.0.1" }
        assert.strictEqual((yield* exchange(host, protocol, "127.0.0.2", 8080, inside)).outcome, "answered")
      }
    })
  )

  it.live("on a loopback address reaches the host alone, whatever route an outsider has", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* outsidersRoute(host, client)
      for (const protocol of ["tcp", "udp"] as const) yield* c1.agent.echo({ protocol, port: 80 })
      // There other processes can change the table.
      const plugin = yield* Plugin.start(host, { env: Plugin.importing("onOlderKernel") })
      for (const protocol of ["tcp", "udp"] as const) {
        const mapped = yield* plugin.map([`${protocol} 127.0.0.2:8080 172.31.0.2:80`])
        assert.strictEqual(mapped.status, 200, mapped.error)
        assert.strictEqual((yield* exchange(host, protocol, "127.0.0.2", 8080)).outcome, "answered")
        assert.notStrictEqual(
          (yield* exchange(client, protocol, "127.0.0.2", 8080, silence)).outcome,
          "answered"
        )
        // Only the guard keeps the outsider out: without it the route reaches the port.
        yield* host.check("nft", ["flush", "set", "inet", "portmapper", "loopback4"])
        assert.strictEqual((yield* exchange(client, protocol, "127.0.0.2", 8080)).outcome, "answered")
        yield* plugin.unmap(mapped.bindings)
      }
    })
  )

  it.live("on two addresses of the host: removing one leaves the other, TCP and UDP", () =>
    Effect.gen(function* () {
      const { host, client, c1, c2 } = yield* Lab.make({ hostAddresses: ["10.99.0.9/24"] })
      for (const protocol of ["tcp", "udp"] as const) {
        yield* c1.agent.echo({ protocol, port: 80 })
        yield* c2.agent.echo({ protocol, port: 80 })
      }
      for (const mode of ["nat", "proxy"]) {
        const plugin = yield* Plugin.start(host, { arguments: ["--mode", mode, "--release-on-exit"] })
        for (const protocol of ["tcp", "udp"] as const) {
          const one = yield* plugin.map([`${protocol} 10.99.0.1:8080 172.31.0.2:80`])
          const two = yield* plugin.map([`${protocol} 10.99.0.9:8080 172.31.0.3:80`])
          yield* plugin.unmap(one.bindings)
          const gone = yield* exchange(client, protocol, "10.99.0.1", 8080, silence)
          assert.notStrictEqual(gone.outcome, "answered", `${mode} ${protocol}`)
          const left = yield* exchange(client, protocol, "10.99.0.9", 8080)
          assert.strictEqual(left.outcome, "answered", `${mode} ${protocol}`)
          yield* plugin.unmap(two.bindings)
        }
        yield* plugin.process.kill("SIGTERM")
        yield* plugin.process.wait()
      }
    })
  )
})
