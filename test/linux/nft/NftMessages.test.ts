import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { libc } from "../../../adapters/linux/Libc.ts"
import { NETLINK_NETFILTER, openNetlink } from "../../../adapters/linux/netlink/Netlink.ts"
import { MessageWriter } from "../../../adapters/linux/netlink/NetlinkMessage.ts"
import { countRules, readTable, writeElements } from "../../../adapters/linux/nft/NftMessages.ts"
import { elementsOf } from "../../../adapters/linux/nft/RuleElements.ts"
import { makeTable } from "../../../adapters/linux/nft/Ruleset.ts"
import type { Element } from "../../../adapters/linux/nft/TableSets.ts"
import { redirect } from "../../firewall/firewallConformance.ts"
import { describeInNamespace, run } from "../../lab/ThreadNamespace.ts"

/** The element that redirects; a rule has others beside it. */
const redirection = (frontend: string, backend: string): ReadonlyArray<Element> =>
  elementsOf(redirect(frontend, backend)).filter(({ set }) => set.kind === "redirect")

describe("messages of elements", () => {
  const bytesOf = (removed: ReadonlyArray<Element>, added: ReadonlyArray<Element>): string => {
    const writer = new MessageWriter()
    writeElements(
      { writer, begin: (type, flags, family) => writer.begin(0xa00 | type, flags, 1, family) },
      "portmapper",
      removed,
      added
    )
    return Buffer.from(writer.bytes.subarray(0, writer.length)).toString("hex")
  }
  // Length, type, flags, sequence, port id, family inet; the table's name.
  const message = (length: string, type: string, flags: string) =>
    `${length}000000${type}0a${flags}0100000000000000010000000f000100706f72746d61707065720000`
  const any4 = "09000200616e793400000000"
  const addr6 = "0a0002006164647236000000"

  it("adds tcp . 8080 : 172.17.0.2 . 80 to any4", () => {
    assert.strictEqual(
      bytesOf([], redirection("tcp 0.0.0.0 8080", "172.17.0.2 80")),
      message("58", "0c", "0104") +
        any4 +
        "28000380" +
        "240001801000018" +
        "00c000100060000001f900000100002800c000100ac11000200500000"
    )
  })

  it("deletes tcp . 8080 from any4", () => {
    assert.strictEqual(
      bytesOf(redirection("tcp 0.0.0.0 8080", "172.17.0.2 80"), []),
      [message("48", "0e", "0100"), any4, "18000380", "14000180100001800c000100060000001f900000"].join("")
    )
  })

  it("adds fd00::1 . udp . 53 : fd00::2 . 5353 to addr6", () => {
    assert.strictEqual(
      bytesOf([], redirection("udp fd00::1 53", "fd00::2 5353")),
      message("74", "0c", "0104") +
        addr6 +
        "44000380" +
        "40000180200001801c000100fd0000000000000000000000000000011100000000350000" +
        "1c00028018000100fd00000000000000000000000000000214e90000"
    )
  })

  it("adds the range tcp . 8080 . 10.0.0.0/8 to allowed_any4", () => {
    const range = elementsOf(redirect("tcp 0.0.0.0 8080", "172.17.0.2 80", "10.0.0.0/8")).filter(
      ({ set }) => set.kind === "allowed"
    )
    assert.strictEqual(
      bytesOf([], range),
      message("68", "0c", "0104") +
        "11000200616c6c6f7765645f616e793400000000" +
        "30000380" +
        "2c0001801400018010000100060000001f9000000a000000" +
        "14000a8010000100060000001f9000000affffff"
    )
  })
})

describeInNamespace("a table that is read", () => {
  const table = makeTable({ name: "portmapper", acceptMark: undefined })

  it("distinguishes a missing table from an existing one", () => {
    run("nft -f -", table.text("portmapper"))
    const netlink = Result.getOrThrow(openNetlink(libc(), NETLINK_NETFILTER))
    const nowhere = Result.getOrThrow(readTable(netlink, "nowhere"))
    const there = Result.getOrThrow(readTable(netlink, "portmapper"))
    assert.deepStrictEqual([nowhere, there], [undefined, { comment: "", owner: undefined }])
    assert.strictEqual(
      Result.getOrThrow(countRules(netlink, "portmapper")),
      table.rules + table.rulesOfServices
    )
    netlink.close()
  })
})
