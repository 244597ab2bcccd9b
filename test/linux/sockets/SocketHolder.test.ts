import { readlinkSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Result } from "effect"
import { libc } from "../../../adapters/linux/Libc.ts"
import { NETLINK_NETFILTER, NETLINK_ROUTE, openNetlink } from "../../../adapters/linux/netlink/Netlink.ts"
import { netlinkInode, processOfSocket } from "../../../adapters/linux/sockets/SocketHolder.ts"
import { describeInNamespace } from "../../lab/ThreadNamespace.ts"

describeInNamespace("the process with a socket", () => {
  it("is found by the port id of a netfilter socket in this namespace, until the socket is closed", () => {
    // Its port id is free for the first socket of each protocol.
    const route = Result.getOrThrow(openNetlink(libc(), NETLINK_ROUTE))
    const netfilter = Result.getOrThrow(openNetlink(libc(), NETLINK_NETFILTER))
    assert.strictEqual(route.portId, netfilter.portId)
    const inode = netlinkInode(netfilter.portId)
    assert.strictEqual(`socket:[${inode}]`, readlinkSync(`/proc/self/fd/${netfilter.fd}`))
    assert.strictEqual(processOfSocket(inode), process.pid)
    for (const { close } of [route, netfilter]) close()
    assert.deepStrictEqual([netlinkInode(netfilter.portId), processOfSocket(inode)], [undefined, undefined])
  })
})
