/** Clients that keep their source port, as DNS, VoIP and VPN clients do: they reach the port's current backend. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { conntrack } from "../lab/Probe.ts"
import { silenceMillis } from "../lab/patience.ts"
import { until } from "../support/until.ts"

/** A flow without long pauses: a datagram from the same source port after each answer or timeout. */
const steadyClient = Effect.fnUntraced(function* (from: Namespace, host: string, port: number) {
  const sent: Array<{ readonly at: number; readonly who: string }> = []
  const once = Effect.gen(function* () {
    const at = performance.now()
    const { outcome, replies } = yield* from.agent.udp({
      host,
      port,
      sourcePort: 5000,
      timeoutMillis: silenceMillis,
      unconnected: true
    })
    sent.push({ at, who: replies[0]?.who ?? outcome })
    yield* Effect.sleep(Math.max(0, 50 - (performance.now() - at)))
  })
  yield* Effect.forkScoped(Effect.forever(once))
  return {
    /**
     * Waits for two answers in a row from this container; a busy machine may answer late, but no other container may
     * answer.
     */
    isAnsweredBy: (who: string) =>
      Effect.gen(function* () {
        const now = performance.now()
        const after = () => sent.filter(({ at }) => at >= now).map((one) => one.who)
        yield* until(Effect.sync(() => after().slice(-2).join() === `${who},${who}`))
        assert.deepStrictEqual(
          [...new Set(after())].filter((one) => one !== "timeout" || who === one),
          [who]
        )
      })
  }
})

const families = [
  { any: "0.0.0.0", host: "10.99.0.1", c1: "172.31.0.2", c2: "172.31.0.3" },
  { any: "[::]", host: "fd99::1", c1: "[fd66::2]", c2: "[fd66::3]" }
]

describeLab("flows of published UDP ports", ["conntrack"], () => {
  for (const { any, host: address, c1: first, c2: second } of families)
    it.live(`follow the port to another container at once: ${any}`, () =>
      Effect.gen(function* () {
        const { host, client, c1, c2 } = yield* Lab.make()
        for (const [container, bind] of [c1, c2].flatMap((one) =>
          ["0.0.0.0", "::"].map((on) => [one, on] as const)
        ))
          yield* container.agent.echo({ protocol: "udp", host: bind, port: 53 })
        const plugin = yield* Plugin.start(host)
        const flow = yield* steadyClient(client, address, 53)
        yield* flow.isAnsweredBy("timeout")
        for (const [backend, who] of [
          [first, "c1"],
          [second, "c2"],
          [first, "c1"]
        ] as const) {
          const mapped = yield* plugin.map([`udp ${any}:53 ${backend}:53`])
          assert.strictEqual(mapped.status, 200, mapped.error)
          yield* flow.isAnsweredBy(who)
          assert.strictEqual((yield* plugin.unmap(mapped.bindings)).status, 200)
          yield* flow.isAnsweredBy("timeout")
        }
      })
    )

  for (const { any, host: address, c1: first, c2: second } of families)
    it.live(`are open for a client that comes back after its container vanished: TCP, ${any}`, () =>
      Effect.gen(function* () {
        const { host, client, c1, c2 } = yield* Lab.make()
        for (const container of [c1, c2])
          for (const on of ["0.0.0.0", "::"]) {
            yield* container.agent.echo({ protocol: "tcp", host: on, port: 80 })
            yield* container.agent.echo({ protocol: "tcp", host: on, port: 81 })
          }
        const plugin = yield* Plugin.start(host)
        const mapped = yield* plugin.map([`tcp ${any}:80 ${first}:80`])
        yield* plugin.map([`tcp ${any}:81 ${first}:81`])
        const open = (port: number) =>
          Effect.tap(client.agent.transfer({ host: address, port, sourcePort: 5000 }), (transfer) =>
            transfer.advance(1)
          )
        yield* open(80)
        const other = yield* open(81)
        // Neither end sends a last packet of this connection.
        const silenced = (port: string) =>
          `nft "table inet cut { chain out { type filter hook output priority 0; ${port} drop; }; }"`
        yield* c1.sh(silenced("tcp sport 80"))
        yield* client.sh(silenced("tcp dport 80"))
        yield* client.sh("ss -K dport = :80")
        yield* client.sh("nft delete table inet cut")
        yield* plugin.unmap(mapped.bindings)
        assert.strictEqual((yield* plugin.map([`tcp ${any}:80 ${second}:80`])).status, 200)
        const { outcome, answer } = yield* client.agent.tcp({ host: address, port: 80, sourcePort: 5000 })
        assert.deepStrictEqual([outcome, answer?.who], ["answered", "c2"])
        yield* other.advance(3)
      })
    )

  for (const share of [{}, { "portmapper.share": "web" }])
    it.live(
      `are open for a client that was refused before, by the same port: TCP, ${JSON.stringify(share)}`,
      () =>
        Effect.gen(function* () {
          const { host, client, c1 } = yield* Lab.make()
          yield* c1.agent.echo({ protocol: "tcp", port: 80 })
          const plugin = yield* Plugin.start(host)
          yield* plugin.map(["tcp 0.0.0.0:80 172.31.0.2:80"], share)
          const backend = { Backend: "172.31.0.2" }
          assert.strictEqual((yield* plugin.call("Drain", backend)).status, 200)
          const connect = client.agent.tcp({ host: "10.99.0.1", port: 80, sourcePort: 5000 })
          assert.strictEqual((yield* connect).outcome, "reset")
          assert.strictEqual((yield* plugin.call("Undrain", backend)).status, 200)
          const { outcome, answer } = yield* connect
          assert.deepStrictEqual([outcome, answer?.who], ["answered", "c1"])
        })
    )

  it.live("follow the container when its policy changes, and end where they are not admitted any more", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "udp", host: "0.0.0.0", port: 53 })
      const plugin = yield* Plugin.start(host)
      const map = (allow: string) =>
        plugin.map(["udp 0.0.0.0:53 172.31.0.2:53"], { "portmapper.allow": allow })
      const flow = yield* steadyClient(client, "10.99.0.1", 53)
      yield* map("10.99.0.0/24")
      yield* flow.isAnsweredBy("c1")
      yield* map("10.98.0.0/24")
      yield* flow.isAnsweredBy("timeout")
      yield* map("10.98.0.0/24,10.99.0.2")
      yield* flow.isAnsweredBy("c1")
    })
  )

  it.live("end, like relayed connections, where a policy excludes their source, even for a moment", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make({ clientAddresses: ["10.99.0.7/24"] })
      yield* c1.agent.echo({ protocol: "tcp", port: 80 })
      const plugin = yield* Plugin.start(host)
      const map = (mode: string, allow: string) =>
        Effect.map(
          plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"], {
            "portmapper.mode": mode,
            "portmapper.allow": allow
          }),
          ({ status, error }) => assert.strictEqual(status, 200, error)
        )
      for (const narrowed of ["proxy", "nat"]) {
        yield* map("proxy", "10.99.0.0/24")
        const transferFrom = (sourceAddress: string) =>
          client.agent.transfer({ host: "10.99.0.1", port: 8080, sourceAddress, timeoutMillis: 5000 })
        const inside = yield* transferFrom("10.99.0.7")
        const outside = yield* transferFrom("10.99.0.2")
        yield* outside.advance(1, { timeoutMillis: 5000 })
        yield* map(narrowed, "10.99.0.7")
        yield* map("proxy", "10.99.0.0/24")
        while ((yield* outside.progress).state === "open") yield* Effect.sleep(10)
        yield* inside.advance(3, { timeoutMillis: 5000 })
      }
    })
  )

  it.live("are kept where the host forwards them for others, on the same port", () =>
    Effect.gen(function* () {
      const { host, client, c1, c2 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "udp", host: "0.0.0.0", port: 53 })
      yield* c2.agent.echo({ protocol: "udp", host: "0.0.0.0", port: 53 })
      const plugin = yield* Plugin.start(host)
      yield* client.agent.udp({ host: "172.31.0.3", port: 53, sourcePort: 6000 })
      yield* client.agent.udp({ host: "10.99.0.1", port: 53, sourcePort: 6000 })
      const ids = Effect.map(host.check("conntrack", ["-L", "-o", "id", "-p", "udp"]), (text) =>
        text
          .split("\n")
          .filter((line) => line.includes("sport=6000"))
          .map((line) => `${/dst=(\S+)/.exec(line)?.[1]} ${/id=(\d+)/.exec(line)?.[1]}`)
          .sort()
      )
      const before = yield* ids
      assert.strictEqual(before.length, 2)
      const mapped = yield* plugin.map(["udp 0.0.0.0:53 172.31.0.2:53"])
      const kept = before.filter((line) => line.startsWith("172.31.0.3 "))
      assert.deepStrictEqual(yield* ids, kept)
      yield* plugin.unmap(mapped.bindings)
      assert.deepStrictEqual(yield* ids, kept)
    })
  )

  it.live("that bypassed a removed table are redirected again once it is back, connections too", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "udp", host: "0.0.0.0", port: 53 })
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 53 })
      const plugin = yield* Plugin.start(host, { env: Plugin.importing("onOlderKernel") })
      yield* plugin.map(["udp 0.0.0.0:53 172.31.0.2:53"])
      yield* plugin.map(["tcp 0.0.0.0:53 172.31.0.2:53"])
      yield* client.agent.udp({ host: "10.99.0.1", port: 53, sourcePort: 7000 })
      const established = (yield* conntrack(host)).filter(({ original }) => original.source.endsWith(":7000"))
      // Connection tracking ends with the last table that needs it, and with it the entries of all bypassing flows.
      yield* host.check("nft", [
        "add table ip others; add chain ip others x { type filter hook prerouting priority 0; }; add rule ip others x ct state new counter"
      ])
      // Stops the plugin until a flow has bypassed the table; otherwise it puts the table back first.
      yield* plugin.process.kill("SIGSTOP")
      yield* host.check("nft", ["delete", "table", "inet", "portmapper"])
      const flow = yield* steadyClient(client, "10.99.0.1", 53)
      yield* flow.isAnsweredBy("timeout")
      const connecting = yield* Effect.forkScoped(
        client.agent.tcp({ host: "10.99.0.1", port: 53, sourcePort: 8000 })
      )
      const isPast = Effect.map(conntrack(host), (connections) =>
        connections.some(({ original, state }) => original.source.endsWith(":8000") && state === "SYN_SENT")
      )
      while (!(yield* isPast)) yield* Effect.sleep(20)
      yield* plugin.process.kill("SIGCONT")
      const { outcome, answer } = yield* Fiber.join(connecting)
      assert.deepStrictEqual([outcome, answer?.who], ["answered", "c1"])
      assert.deepStrictEqual(yield* contents(host), {
        any4: ["tcp . 53 : 172.31.0.2 . 53", "udp . 53 : 172.31.0.2 . 53"],
        hairpin_any4: ["tcp . 53 . 172.31.0.2", "udp . 53 . 172.31.0.2"]
      })
      yield* flow.isAnsweredBy("c1")
      assert.deepStrictEqual(
        (yield* conntrack(host)).filter(({ original }) => original.source.endsWith(":7000")),
        established
      )
    })
  )
})
