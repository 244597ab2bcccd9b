/** What is counted of living, ended and foreign flows, by the kernel's own accounting of real packets. */
import { writeFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { layer as byteCounter } from "../../../adapters/linux/conntrack/ByteCounter.ts"
import { layer as nftFirewall } from "../../../adapters/linux/nft/NftFirewall.ts"
import { ByteCounter } from "../../../src/firewall/ByteCounter.ts"
import { Firewall } from "../../../src/firewall/Firewall.ts"
import { redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace, LabHost, run } from "../../lab/ThreadNamespace.ts"

const account = (value: "0" | "1") => writeFileSync("/proc/sys/net/netfilter/nf_conntrack_acct", value)

describeInNamespace("ByteCounter", () => {
  it.live("counts packets each way, of living flows and of ended ones", () =>
    Effect.gen(function* () {
      const { client, c1 } = yield* LabHost
      yield* c1.agent.echo({ protocol: "udp", port: 80 })
      const any = redirect("udp 0.0.0.0 8080", "172.31.0.2 80")
      const own = redirect("udp 10.99.0.1 8081", "172.31.0.2 80")
      yield* Firewall.use(({ replace }) => replace([any, own]))
      const ask = (port: number, rounds: number) =>
        client.agent.udp({ host: "10.99.0.1", port, rounds, payload: "?" })
      const { read, forget } = yield* ByteCounter
      const sums = Effect.andThen(Effect.sleep(1050), read([any, own]))

      account("0")
      assert.deepStrictEqual(yield* read([any, own]), [undefined, undefined])
      account("1")
      assert.deepStrictEqual(yield* sums, [
        { in: 0, out: 0 },
        { in: 0, out: 0 }
      ])
      yield* ask(8080, 3)
      const [one, other] = yield* sums
      // "?" in a packet of IPv4 and UDP.
      assert.strictEqual(one?.in, 3 * 29)
      assert.isAbove(one?.out ?? 0, 28)
      assert.deepStrictEqual(other, { in: 0, out: 0 })

      run("conntrack -D -p udp --dport 8080")
      assert.deepStrictEqual(yield* sums, [one, other])
      yield* ask(8080, 2)
      run("conntrack -D -p udp --dport 8080")
      assert.strictEqual((yield* sums)[0]?.in, 5 * 29)
      yield* forget([any])
      yield* ask(8081, 1)
      assert.deepStrictEqual(
        (yield* sums).map((bytes) => bytes?.in),
        [0, 29]
      )
      account("0")
      assert.deepStrictEqual(yield* read([any, own]), [undefined, undefined])
    }).pipe(Effect.provide(Layer.provideMerge(Layer.merge(byteCounter, nftFirewall()), LabHost.layer)))
  )
}, ["conntrack"])
