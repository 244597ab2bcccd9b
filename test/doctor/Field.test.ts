import { assert, describe, it } from "@effect/vitest"
import { fieldOf, holds, keyOf, markOf } from "../../adapters/doctor/Field.ts"
import type { Packet } from "../../adapters/doctor/Packet.ts"
import { pathsOf } from "../../adapters/doctor/PacketPath.ts"
import { published } from "./published.ts"

/** A new packet from outside to 172.17.0.2 port 80, forwarded from eth0 to docker0. */
const packet: Packet = (() => {
  const hop = pathsOf(published(), 0)[0]?.find(({ hook }) => hook === "forward")
  if (hop === undefined) throw new Error("no packet is forwarded")
  return { ...hop.packet, mark: 0x11 }
})()

const payload = (protocol: string, field: string) => ({ payload: { protocol, field } })
const meta = (key: string) => ({ meta: { key } })
const ct = (key: string, dir?: string) => ({ ct: { key, dir } })

const sets = (name: string) =>
  ({ ports: [79, { range: [80, 90] }], elements: [{ elem: { val: 80, counter: {} } }] })[name]

const holdsFor = (left: unknown, operator: string, right: unknown) =>
  holds(fieldOf(left, packet), operator, right, packet, sets)

describe("a field of a packet", () => {
  for (const [left, operator, right, match] of [
    [payload("tcp", "dport"), "==", 80, "yes"],
    [payload("tcp", "dport"), "!=", 80, "no"],
    [payload("tcp", "dport"), "<", 80, "no"],
    [payload("tcp", "dport"), "<=", 80, "yes"],
    [payload("tcp", "dport"), ">", 79, "yes"],
    [payload("tcp", "dport"), ">=", 81, "no"],
    [payload("th", "dport"), "==", { range: [79, 81] }, "yes"],
    [payload("th", "dport"), "==", "@ports", "yes"],
    [payload("th", "dport"), "==", "@elements", "yes"],
    [payload("th", "dport"), "==", "@missing", "unknown"],
    [payload("th", "sport"), "==", { range: [1024, 65_535] }, "mostly"],
    [payload("udp", "dport"), "==", 80, "no"],
    [payload("udp", "dport"), "!=", 80, "no"],
    [payload("ip", "daddr"), "==", { prefix: { addr: "172.17.0.0", len: 16 } }, "yes"],
    [payload("ip", "daddr"), "==", { range: ["172.17.0.3", "172.17.0.9"] }, "no"],
    [payload("ip", "daddr"), "==", "not an address", "unknown"],
    [payload("ip", "saddr"), "==", "203.0.113.7", "rarely"],
    [payload("ip", "saddr"), "!=", "203.0.113.7", "mostly"],
    [payload("ip6", "daddr"), "==", "::1", "no"],
    [payload("ip", "ttl"), "<", 2, "unknown"],
    [payload("icmp", "type"), "==", "echo-request", "no"],
    [meta("iifname"), "==", "eth0", "yes"],
    [meta("oifname"), "==", "docker*", "yes"],
    [meta("oifname"), "!=", "docker0", "no"],
    [meta("l4proto"), "==", { set: ["udp", 6] }, "yes"],
    [meta("nfproto"), "==", "ipv6", "no"],
    [meta("mark"), "==", 0x11, "yes"],
    [meta("skuid"), "==", 0, "unknown"],
    [{ "&": [meta("mark"), 0x10] }, "==", 0x10, "yes"],
    [{ "&": [meta("mark"), 0x20] }, "!=", 0, "no"],
    [ct("state"), "in", ["established", "related"], "no"],
    [ct("state"), "in", ["new", "related"], "yes"],
    [ct("status"), "in", "dnat", "yes"],
    [ct("ip daddr", "original"), "==", "192.0.2.1", "yes"],
    [ct("ip6 daddr", "original"), "==", "::1", "no"],
    [ct("proto-dst", "original"), "==", 8080, "yes"],
    [ct("expiration"), "==", 1, "unknown"],
    [{ fib: { result: "type", flags: ["daddr"] } }, "==", "local", "no"],
    [payload("tcp", "flags"), "==", "syn", "yes"],
    [{ "&": [payload("tcp", "flags"), ["fin", "syn"]] }, "==", ["syn"], "yes"],
    [payload("tcp", "flags"), "==", ["syn", "ack"], "no"],
    [{ concat: [meta("l4proto"), payload("th", "dport")] }, "==", { concat: ["tcp", 80] }, "yes"],
    [{ concat: [meta("l4proto"), payload("th", "dport")] }, "==", { concat: ["tcp", 81] }, "no"],
    [{ concat: [meta("l4proto"), payload("udp", "dport")] }, "==", { concat: ["tcp", 80] }, "no"],
    [{ either: [payload("th", "sport"), payload("th", "dport")] }, "==", 80, "yes"],
    [{ numgen: { mode: "random" } }, "==", 0, "unknown"]
  ] as const)
    it(`${JSON.stringify(left)} ${operator} ${JSON.stringify(right)}: ${match}`, () =>
      assert.strictEqual(holdsFor(left, operator, right), match))
})

describe("the mark that an expression sets", () => {
  for (const [expression, mark] of [
    [7, 7],
    [meta("mark"), 0x11],
    [{ "|": [meta("mark"), 0x100] }, 0x111],
    [{ "&": [meta("mark"), 0x10] }, 0x10],
    [{ "^": [{ "&": [meta("mark"), 0xff] }, 0x11] }, 0],
    [{ "|": [0x8000_0000, 1] }, 0x8000_0001],
    [{ ct: { key: "mark" } }, undefined],
    [{ "|": [{ ct: { key: "mark" } }, 1] }, undefined]
  ] as const)
    it(`${JSON.stringify(expression)}: ${mark}`, () => assert.strictEqual(markOf(expression, packet), mark))
})

describe("an element of a set", () => {
  it("is its key, with or without properties around it", () =>
    assert.deepStrictEqual([keyOf(80), keyOf({ elem: { val: 80, comment: "web" } })], [80, 80]))
})
