/** The plugin for a user who may change nothing in the kernel: the process has no capability at all. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { tables } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { listening } from "../lab/Probe.ts"

const withoutCapabilities = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]

describeLab("the plugin without privileges", [], () => {
  it.live("relays what it maps, leaves nothing behind, and refuses privileged ports", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      for (const protocol of ["tcp", "udp"] as const)
        for (const address of ["0.0.0.0", "::"]) yield* c1.agent.echo({ protocol, host: address, port: 80 })
      const plugin = yield* Plugin.start(host, { wrapper: withoutCapabilities })
      assert.include(
        plugin.process.lines("stderr").join("\n"),
        "mode proxy, since nat is not available: locking nftables table inet portmapper failed: operation not permitted: this requires root or the capability CAP_NET_ADMIN"
      )
      const asked = ["0.0.0.0:8080 172.31.0.2:80", "[::]:8080 172.31.0.2:80", "[::]:8081 [fd66::2]:80"]
      const bindings = []
      for (const entry of asked)
        for (const protocol of ["tcp", "udp"]) {
          const mapped = yield* plugin.map([`${protocol} ${entry}`])
          assert.strictEqual(mapped.status, 200, mapped.error)
          bindings.push(...mapped.bindings)
        }
      for (const [address, port] of [
        ["10.99.0.1", 8080],
        ["fd99::1", 8080],
        ["fd99::1", 8081]
      ] as const) {
        const tcp = yield* client.agent.tcp({ host: address, port })
        assert.deepStrictEqual([tcp.outcome, tcp.answer?.who], ["answered", "c1"])
        const udp = yield* client.agent.udp({ host: address, port })
        assert.deepStrictEqual([udp.outcome, udp.replies[0]?.who], ["answered", "c1"])
      }
      assert.deepInclude(yield* plugin.map(["tcp 0.0.0.0:80 172.31.0.2:80"]), {
        status: 500,
        error: "bind for 0.0.0.0:80/tcp failed: permission denied"
      })
      assert.strictEqual((yield* plugin.unmap(bindings)).status, 200)
      assert.strictEqual((yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })).outcome, "refused")
      assert.deepStrictEqual(yield* listening(host, { pid: plugin.process.pid }), [])
      assert.deepStrictEqual(yield* tables(host), [])
    })
  )
})
