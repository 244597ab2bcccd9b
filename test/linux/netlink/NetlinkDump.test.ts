import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { flowsTo, readFlow } from "../../../adapters/linux/conntrack/ConntrackMessages.ts"
import { EINTR, ENOBUFS, type Libc, libc } from "../../../adapters/linux/Libc.ts"
import { NETLINK_NETFILTER } from "../../../adapters/linux/netlink/Netlink.ts"
import { openDump } from "../../../adapters/linux/netlink/NetlinkDump.ts"
import { describeInNamespace } from "../../lab/ThreadNamespace.ts"
import { createFlows, flow } from "../flows.ts"

describeInNamespace("a dump of a large table", () => {
  createFlows(
    Array.from({ length: 5000 }, (_, port) =>
      flow(`udp 10.1.0.2:${1000 + port} 192.0.2.1:${port % 2 === 0 ? 53 : 54}`)
    )
  )

  /** Opens a dump whose reads have these results first; returns how many flows lead to a port. */
  const opened = (...results: ReadonlyArray<number | undefined>) => {
    const left = [...results]
    const load: Libc = {
      ...libc(),
      recvfromLater: (...all) => {
        const result = left.shift()
        return result === undefined ? libc().recvfromLater(...all) : Promise.resolve(result)
      }
    }
    return Effect.map(openDump(load, NETLINK_NETFILTER), (dump) => (port: number) => {
      const ports = new Set<number>()
      return Effect.as(
        dump(flowsTo(2, 17, port, undefined), (message) => {
          const { original } = readFlow(message) ?? assert.fail("a flow without ports")
          assert.strictEqual(original.destinationPort, port)
          ports.add(original.sourcePort)
        }),
        ports
      ).pipe(Effect.map(({ size }) => size))
    })
  }

  it.live("has every part, also where a signal interrupts a read", () =>
    Effect.gen(function* () {
      const flows = yield* opened(-EINTR, undefined, -EINTR)
      assert.deepStrictEqual([yield* flows(53), yield* flows(54), yield* flows(55)], [2500, 2500, 0])
    })
  )

  it.live("fails where the kernel has no buffers, and the next one is whole", () =>
    Effect.gen(function* () {
      const flows = yield* opened(undefined, -ENOBUFS)
      assert.strictEqual((yield* Effect.flip(flows(53))).message, "recv: no buffer space available")
      assert.deepStrictEqual([yield* flows(53), yield* flows(54)], [2500, 2500])
    })
  )

  it.live("waits for the one before it", () =>
    Effect.gen(function* () {
      const flows = yield* opened()
      const all = Effect.forEach([53, 54, 53, 54], flows, { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* all, [2500, 2500, 2500, 2500])
    })
  )
}, ["conntrack"])
