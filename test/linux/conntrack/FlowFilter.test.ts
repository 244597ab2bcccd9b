import { assert, it } from "@effect/vitest"
import { Result } from "effect"
import { NFNLGRP_CONNTRACK_DESTROY, readFlow } from "../../../adapters/linux/conntrack/ConntrackMessages.ts"
import { attachFlowFilter } from "../../../adapters/linux/conntrack/FlowFilter.ts"
import { libc } from "../../../adapters/linux/Libc.ts"
import { NETLINK_NETFILTER, openNetlink } from "../../../adapters/linux/netlink/Netlink.ts"
import { describeInNamespace, run } from "../../lab/ThreadNamespace.ts"
import { createFlows, flow } from "../flows.ts"

describeInNamespace("the filter of conntrack's events", () => {
  it("passes the ends of redirected flows alone", () => {
    const netlink = Result.getOrThrow(openNetlink(libc(), NETLINK_NETFILTER))
    assert.strictEqual(attachFlowFilter(libc(), netlink.fd), 0)
    Result.getOrThrow(netlink.subscribe(NFNLGRP_CONNTRACK_DESTROY))
    createFlows([
      flow("udp 10.1.0.2:5000 192.0.2.1:53"),
      flow("udp 10.1.0.2:5001 192.0.2.1:53 10.0.0.2:5353"),
      flow("tcp [2001:db8::2]:5002 [2001:db8::1]:53"),
      flow("tcp [2001:db8::2]:5003 [2001:db8::1]:53 [fd00::2]:5353")
    ])
    run("conntrack -F")
    const flows = Result.getOrThrow(netlink.receive()).flatMap((message) => readFlow(message) ?? [])
    netlink.close()
    assert.deepStrictEqual(flows.map(({ original }) => original.sourcePort).sort(), [5001, 5003])
  })
}, ["conntrack"])
