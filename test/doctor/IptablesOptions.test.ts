import { assert, describe, it } from "@effect/vitest"
import { readOption } from "../../adapters/doctor/IptablesOptions.ts"

/** The statement of the first option, and what is left. */
const read = (text: string, match = "", family: "ip" | "ip6" = "ip") => {
  const words = text.split(" ")
  const { next, statement } = readOption(words, 0, match, family)
  return { statement, rest: words.slice(next).join(" ") }
}

const matching = (left: object, right: unknown, op = "==") => ({ match: { op, left, right } })
const meta = (key: string) => ({ meta: { key } })
const payload = (protocol: string, field: string) => ({ payload: { protocol, field } })
const th = (field: string) => payload("th", field)
const ct = (key: string) => ({ ct: { key, dir: "original" } })
const ports = (...ranges: ReadonlyArray<readonly [number, number]>) => ({
  set: ranges.map((range) => ({ range: [...range] }))
})

describe("an option of iptables", () => {
  for (const [match, text, statement] of [
    ["", "-s 10.0.0.0/8", matching(payload("ip", "saddr"), "10.0.0.0/8")],
    ["", "! -i eth+", matching(meta("iifname"), "eth+", "!=")],
    ["", "-p 6", matching(meta("l4proto"), "tcp")],
    ["", "-p 99", matching(meta("l4proto"), "99")],
    ["", "-p all", { assumed: "yes" }],
    ["", "! -p all", { assumed: "no" }],
    ["tcp", "--dport 80", matching(th("dport"), ports([80, 80]))],
    ["udp", "--sport 1024:", matching(th("sport"), ports([1024, 65_535]))],
    ["sctp", "--dport :99", matching(th("dport"), ports([0, 99]))],
    ["multiport", "--dports 22,80:90", matching(th("dport"), ports([22, 22], [80, 90]))],
    ["multiport", "--ports 80", matching({ either: [th("sport"), th("dport")] }, ports([80, 80]))],
    [
      "iprange",
      "--src-range 10.0.0.1-10.0.0.9",
      matching(payload("ip", "saddr"), { range: ["10.0.0.1", "10.0.0.9"] })
    ],
    [
      "conntrack",
      "--ctstate NEW,DNAT",
      matching({ either: [ct("state"), ct("status")] }, { set: ["new", "dnat"] })
    ],
    ["conntrack", "--ctorigdst 192.0.2.1", matching(ct("ip daddr"), "192.0.2.1")],
    ["mark", "--mark 0x1/0xf", matching({ "&": [meta("mark"), 0xf] }, 1)],
    ["connmark", "--mark 0x80000000", matching({ "&": [ct("mark"), 0xffff_ffff] }, 0x8000_0000)],
    ["tcp", "--syn", matching({ "&": [th("flags"), ["fin", "syn", "rst", "ack"]] }, ["syn"])],
    ["tcp", "--tcp-flags ALL NONE", matching(th("flags"), [])],
    ["addrtype", "--src-type LOCAL,UNICAST", { assumed: "yes" }],
    ["addrtype", "--src-type BROADCAST", { assumed: "no" }],
    ["limit", "--limit 3/min", { assumed: "mostly" }],
    ["hashlimit", "! --hashlimit-upto 3/min", { assumed: "rarely" }],
    ["set", "--match-set f2b src", { assumed: "rarely" }],
    ["recent", "--seconds 60", { assumed: "yes" }],
    ["string", "--algo bm", { assumed: "unknown" }],
    // Each match has options of its own.
    ["udp", "--syn", { assumed: "unknown" }]
  ] as const)
    it(`${match} ${text} is ${JSON.stringify(statement)}`.trim(), () =>
      assert.deepStrictEqual<unknown>(read(text, match), { statement, rest: "" })
    )

  it("is about the family of its table", () => {
    assert.deepStrictEqual(
      read("-d fd00::2", "", "ip6").statement,
      matching(payload("ip6", "daddr"), "fd00::2")
    )
  })

  it("takes its own values and leaves the next option, of an unknown one all that is no option", () => {
    assert.strictEqual(read("--dport 80 -j DROP", "tcp").rest, "-j DROP")
    assert.strictEqual(read("! --syn -j DROP", "tcp").rest, "-j DROP")
    for (const next of ["-j DROP", "-m limit", "! -s 10.0.0.1", "--to 65535"])
      assert.strictEqual(read(`--from 1 -2 ${next}`, "string").rest, next)
  })
})
