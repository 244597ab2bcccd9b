/**
 * `ByteCounter` by conntrack's accounting (`net.netfilter.nf_conntrack_acct`): it dumps live flows when the caller
 * requests counts, and the kernel reports the end of each redirected flow. It does not listen where accounting is
 * off: a listener costs the kernel a message for every flow that ends.
 *
 * Not counted: the bytes of a flow that began before accounting was on, or that ended while this process did not
 * run; and for a flow that began before this process listened, the bytes after the last dump, since the kernel does
 * not report its end.
 */
import { Clock, Effect, Layer, Result, Scope, Semaphore } from "effect"
import { ByteCounter } from "../../../src/firewall/ByteCounter.ts"
import { readText } from "../../node/FileText.ts"
import * as C from "../Libc.ts"
import { NETLINK_NETFILTER, type Netlink, scopedNetlink } from "../netlink/Netlink.ts"
import { openDump } from "../netlink/NetlinkDump.ts"
import { flowsOfStatus, IPS_DST_NAT, NFNLGRP_CONNTRACK_DESTROY, readFlow } from "./ConntrackMessages.ts"
import { makeAccounting } from "./FlowAccounting.ts"
import { attachFlowFilter } from "./FlowFilter.ts"

/** Maximum age of a cached result. */
const freshNanos = 1_000_000_000n

export const layer: Layer.Layer<ByteCounter, C.Errno> = Layer.effect(
  ByteCounter,
  Effect.gen(function* () {
    const libc = C.libc()
    const dump = yield* openDump(libc, NETLINK_NETFILTER)
    const permits = yield* Semaphore.make(1)
    const scope = yield* Effect.scope
    const accounting = makeAccounting()
    let ends: Netlink | undefined
    let walkedAt: bigint | undefined

    /** Reads the ends reported so far. If the kernel dropped some, those flows count as last seen. */
    const takeEnds = () => {
      let received = ends?.receive()
      while (received !== undefined && Result.isFailure(received)) {
        if (received.failure.errno !== C.ENOBUFS) return
        received = ends?.receive()
      }
      for (const message of received?.success ?? []) {
        const flow = readFlow(message)
        if (flow !== undefined) accounting.ended(flow)
      }
    }

    const listen = Effect.gen(function* () {
      if (ends !== undefined) return
      const netlink = yield* scopedNetlink(libc, NETLINK_NETFILTER)
      const filtered = attachFlowFilter(libc, netlink.fd)
      if (filtered < 0) return yield* libc.errno("setsockopt", filtered)
      yield* Effect.fromResult(netlink.subscribe(NFNLGRP_CONNTRACK_DESTROY))
      yield* Effect.acquireRelease(
        Effect.sync(() => libc.onReadable(netlink.fd, takeEnds)),
        (stop) => Effect.sync(stop)
      )
      ends = netlink
    }).pipe(Effect.provideService(Scope.Scope, scope))

    /** Dumps the live flows, unless the last dump is recent enough. */
    const refresh = permits.withPermit(
      Effect.gen(function* () {
        if (walkedAt !== undefined && (yield* Clock.monotonicTimeNanos) - walkedAt < freshNanos) return
        yield* listen
        accounting.begin()
        yield* dump(redirectedFlows, (message) => {
          const flow = readFlow(message)
          if (flow !== undefined) accounting.seen(flow)
        })
        // The kernel reports a flow's end before it removes the flow: every flow missing from the dump has been
        // reported.
        takeEnds()
        accounting.finish()
        walkedAt = yield* Clock.monotonicTimeNanos
      })
    )

    if (countsBytes()) yield* listen

    return ByteCounter.of({
      read: Effect.fnUntraced(function* (redirected) {
        const counted = countsBytes() && Result.isSuccess(yield* Effect.result(refresh))
        return counted ? accounting.sums(redirected) : redirected.map(() => undefined)
      }),
      forget: (redirected) => Effect.sync(() => accounting.forget(redirected))
    })
  })
)

const redirectedFlows = flowsOfStatus(IPS_DST_NAT, IPS_DST_NAT)

const countsBytes = (): boolean => readText("/proc/sys/net/netfilter/nf_conntrack_acct")?.trim() === "1"
