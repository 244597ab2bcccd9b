/** The kernel's answers to batches and dumps. */
import { readdirSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Result } from "effect"
import { EINTR, ENOBUFS, type Libc, libc } from "../../../adapters/linux/Libc.ts"
import { NETLINK_NETFILTER, type Netlink, openNetlink } from "../../../adapters/linux/netlink/Netlink.ts"
import {
  errnoOf,
  MessageWriter,
  NLM_F_CREATE,
  NLMSG_ERROR,
  readMessages
} from "../../../adapters/linux/netlink/NetlinkMessage.ts"
import {
  NFNL_SUBSYS_NFTABLES,
  readElements,
  readGeneration,
  writeElements
} from "../../../adapters/linux/nft/NftMessages.ts"
import { elementsOf } from "../../../adapters/linux/nft/RuleElements.ts"
import { makeTable } from "../../../adapters/linux/nft/Ruleset.ts"
import type { Element } from "../../../adapters/linux/nft/TableSets.ts"
import { guard, redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace, run } from "../../lab/ThreadNamespace.ts"

/** The element that redirects; a rule has others beside it. */
const redirection = (frontend: string, backend: string): ReadonlyArray<Element> =>
  elementsOf(redirect(frontend, backend)).filter(({ set }) => set.kind === "redirect")

describeInNamespace("Netlink", () => {
  const open = (library: Libc = libc()): Netlink => Result.getOrThrow(openNetlink(library, NETLINK_NETFILTER))
  const table = makeTable({ name: "portmapper", acceptMark: undefined })
  const rule = (port: number) => redirection(`tcp 0.0.0.0 ${port}`, "10.0.0.2 80")
  const ports = Array.from({ length: 20_000 }, (_, index) => 1000 + index)

  const inOwnMessages = (netlink: Netlink, removed: ReadonlyArray<number>, added: ReadonlyArray<number>) =>
    Result.getOrThrow(
      netlink.batch(NFNL_SUBSYS_NFTABLES, (batch) => {
        for (const port of removed) writeElements(batch, "portmapper", rule(port), [])
        for (const port of added) writeElements(batch, "portmapper", [], rule(port))
      })
    )

  const elements = (netlink: Netlink) => {
    const [redirects] = rule(1).map(({ set }) => set)
    if (redirects === undefined) throw new Error("no set")
    return Result.getOrThrow(readElements(netlink, "portmapper", redirects)).length
  }

  it("commits a batch of 20,000 messages, and reads back what it added", () => {
    run("nft -f -", table.text("portmapper"))
    const netlink = open()
    assert.deepStrictEqual(inOwnMessages(netlink, [], ports), [])
    assert.strictEqual(elements(netlink), 20_000)
    netlink.close()
  })

  it("dumps again after the reader of a dump failed midway", () => {
    const { recvfrom } = libc()
    let left = Infinity
    const netlink = open({
      ...libc(),
      recvfrom: (...all) => (left-- === 0 ? -ENOBUFS : recvfrom(...all))
    })
    const whole = elements(netlink)
    assert.isAtLeast(whole, 20_000)
    left = 1
    assert.throws(() => elements(netlink), "dump: no buffer space available")
    assert.strictEqual(elements(netlink), whole)
    netlink.close()
  })

  it("reports every refused message of a batch, and changes nothing", () => {
    run("nft -f -", table.text("portmapper"))
    const netlink = open()
    assert.deepStrictEqual(
      inOwnMessages(netlink, [1, 2], [3]).map(({ index, errno }) => [index, errno]),
      [
        [0, 2],
        [1, 2]
      ]
    )
    const refusals = inOwnMessages(netlink, ports, [])
    assert.strictEqual(refusals.length, 20_000)
    assert.deepStrictEqual(refusals.at(-1), { index: 19_999, errno: 2 })
    assert.strictEqual(elements(netlink), 0)
    assert.deepStrictEqual(inOwnMessages(netlink, [], [3]), [])
    netlink.close()
  })

  it("reports that a batch is not permitted", () => {
    const netlink = open()
    process.seteuid?.(65534)
    const unprivileged = open()
    const refusals = inOwnMessages(unprivileged, [], [4])
    process.seteuid?.(0)
    assert.deepStrictEqual(refusals, [{ index: -1, errno: 1 }])
    unprivileged.close()
    netlink.close()
  })

  it("reports that the kernel has no buffers, and retries where a signal interrupts", () => {
    const full = open({ ...libc(), send: () => -ENOBUFS })
    const failed = full.batch(NFNL_SUBSYS_NFTABLES, (batch) =>
      writeElements(batch, "portmapper", [], rule(5))
    )
    assert.strictEqual(Result.isFailure(failed) && failed.failure.message, "send: no buffer space available")
    full.close()

    let signals = 3
    const { send } = libc()
    const interrupted = open({ ...libc(), send: (...all) => (signals-- > 0 ? -EINTR : send(...all)) })
    assert.deepStrictEqual(inOwnMessages(interrupted, [], [5]), [])
    interrupted.close()
  })

  it("treats a lost answer as a lack of buffers", () => {
    const { recvfrom } = libc()
    let lost = 0
    const netlink = open({ ...libc(), recvfrom: (...all) => (lost-- > 0 ? -ENOBUFS : recvfrom(...all)) })
    lost = 1
    assert.deepStrictEqual(inOwnMessages(netlink, [], [6]), [{ index: -1, errno: ENOBUFS }])
    assert.deepStrictEqual(inOwnMessages(netlink, [], [7]), [])
    netlink.close()
  })

  it("receives changes on a separate socket", () => {
    const events = open()
    Result.getOrThrow(events.subscribe(7))
    const netlink = open()
    const before = Result.getOrThrow(readGeneration(netlink))
    inOwnMessages(netlink, [], [8])
    const types = Result.getOrThrow(events.receive()).map(({ type }) => type & 0xff)
    assert.deepStrictEqual(types, [12, 15])
    assert.strictEqual(Result.getOrThrow(readGeneration(netlink)), before + 1)
    events.close()
    netlink.close()
  })

  it("leaves no descriptor open", () => {
    const before = readdirSync("/proc/self/fd").length
    open().close()
    assert.strictEqual(readdirSync("/proc/self/fd").length, before)
  })

  it("reads no further than a truncated message", () => {
    const writer = new MessageWriter()
    for (const type of [NLMSG_ERROR, 0xa0c]) {
      writer.begin(type, NLM_F_CREATE, 1, 1)
      writer.string(1, guard("tcp 127.0.0.1 80")._tag)
      writer.end()
    }
    const whole = [...readMessages(writer.bytes.subarray(0, writer.length))]
    const cut = [...readMessages(writer.bytes.subarray(0, writer.length - 1))]
    assert.deepStrictEqual([whole.length, cut.length], [2, 1])
    assert.deepStrictEqual(whole.map(errnoOf), [-1, -1])
  })
})
