import { assert, describe, it } from "@effect/vitest"
import { chainVerdict } from "../../adapters/doctor/ChainVerdict.ts"
import type { Packet } from "../../adapters/doctor/Packet.ts"
import { pathsOf } from "../../adapters/doctor/PacketPath.ts"
import type { Chain, Json, Table } from "../../adapters/doctor/Tables.ts"
import { published } from "./published.ts"

const rule = (text: string, ...statements: ReadonlyArray<Json>) => ({ text, statements })
const port = (right: unknown): Json => ({
  match: { left: { payload: { protocol: "tcp", field: "dport" } }, op: "==", right }
})
const source = (right: string): Json => ({
  match: { left: { payload: { protocol: "ip", field: "saddr" } }, op: "==", right }
})
const marked = (right: number): Json => ({ match: { left: { meta: { key: "mark" } }, op: "==", right } })
const drop = { drop: null }
const accept = { accept: null }
const jump = (target: string): Json => ({ jump: { target } })
const goto = (target: string): Json => ({ goto: { target } })

/** A new packet to port 80 of the backend, in the forward hook. */
const packet: Packet = (() => {
  const hop = pathsOf(published({ traffic: "routed" }), 0)[0]?.find(({ hook }) => hook === "forward")
  if (hop === undefined) throw new Error("no packet is forwarded")
  return hop.packet
})()

const verdict = (chains: Readonly<Record<string, Chain["rules"]>>, policy: "accept" | "drop" = "accept") => {
  const table: Table = {
    tool: "nft",
    family: "inet",
    name: "mine",
    chains: new Map(
      Object.entries(chains).map(([name, rules]) => [
        name,
        { name, rules, base: name === "base" ? { hook: "forward", priority: 0, policy } : undefined }
      ])
    ),
    sets: () => undefined
  }
  const base = table.chains.get("base")
  if (base === undefined) throw new Error("no base chain")
  const found = chainVerdict(table, base, packet, (name) => name === "opened")
  return `${found.verdict} ${found.chain}: ${found.rule}${found.exceptions.map((text) => ` | ${text}`).join("")}`
}

describe("the verdict of a chain", () => {
  it("is that of the first rule that matches, else its policy", () => {
    const rules = [rule("a", port(81), drop), rule("b", port(80), accept), rule("c", drop)]
    assert.strictEqual(verdict({ base: rules }), "accept base: b")
    assert.strictEqual(verdict({ base: [rule("a", port(81), accept)] }, "drop"), "drop base: policy drop")
    assert.strictEqual(verdict({ base: [] }), "accept base: policy accept")
  })

  it("comes back from a chain that it jumped to, and not from one that it went to", () => {
    const other = [rule("other", port(81), drop)]
    assert.strictEqual(verdict({ base: [rule("j", jump("x")), rule("d", drop)], x: other }), "drop base: d")
    assert.strictEqual(
      verdict({ base: [rule("g", goto("x")), rule("d", drop)], x: other }),
      "accept base: policy accept"
    )
    const back = [rule("r", port(80), { return: null }), rule("d", drop)]
    assert.strictEqual(verdict({ base: [rule("j", jump("x"))], x: back }), "accept base: policy accept")
  })

  it("ends where chains lead to each other", () =>
    assert.strictEqual(
      verdict({ base: [rule("j", jump("x"))], x: [rule("y", jump("y"))], y: [rule("x", jump("x"))] }),
      "accept base: policy accept"
    ))

  it("accepts in a chain that is assumed to be open", () =>
    assert.strictEqual(
      verdict({ base: [rule("j", jump("opened"))], opened: [rule("d", drop)] }),
      "accept opened: "
    ))

  it("names as exceptions the rules that let special packets pass before it, and those that let most of them pass", () => {
    const special = rule("one source", source("203.0.113.7"), accept)
    const unknown = rule("ttl", { match: { left: { what: 1 }, op: "==", right: 2 } }, accept)
    const rest = rule("rest", drop)
    assert.strictEqual(verdict({ base: [special, unknown, rest] }), "drop base: rest | one source | ttl")
    const few = rule("few", { limit: { rate: 10, per: "second" } }, drop)
    assert.strictEqual(verdict({ base: [few] }), "drop base: few | few")
    const over = rule("many", { limit: { rate: 10, per: "second", inv: true } }, drop)
    assert.strictEqual(verdict({ base: [over] }), "accept base: policy accept")
  })

  it("goes by a verdict map, and by a mark that an earlier rule set", () => {
    const vmap = rule("vmap", {
      vmap: {
        key: { payload: { protocol: "tcp", field: "dport" } },
        data: {
          set: [
            [79, accept],
            [80, drop]
          ]
        }
      }
    })
    assert.strictEqual(verdict({ base: [vmap] }), "drop base: vmap")
    const set = rule("set", port(80), { mangle: { key: { meta: { key: "mark" } }, value: 7 } })
    assert.strictEqual(verdict({ base: [set, rule("seven", marked(7), drop)] }), "drop base: seven")
    assert.strictEqual(verdict({ base: [set, rule("eight", marked(8), drop)] }), "accept base: policy accept")
  })
})
