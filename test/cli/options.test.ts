import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import type { Flag } from "effect/cli"
import * as Options from "../../adapters/cli/options.ts"

/** What an option makes of a text: its value, or the rule that the text breaks. */
const reading =
  <A>(name: string, flag: Flag.Flag<A>) =>
  (text: string) =>
    flag.parse({ flags: { [name]: [text] }, arguments: [] }).pipe(
      Effect.map(([, value]): unknown => (Option.isOption(value) ? Option.getOrUndefined(value) : value)),
      Effect.catchTag("InvalidValue", ({ expected }) => Effect.succeed(expected)),
      Effect.provide(NodeServices.layer)
    )

const reads = <A>(
  name: string,
  flag: Flag.Flag<A>,
  rows: ReadonlyArray<readonly [text: string, found: unknown]>
) =>
  Effect.forEach(
    rows,
    ([text, found]) =>
      Effect.map(reading(name, flag)(text), (read) => assert.deepStrictEqual(read, found, text)),
    { discard: true }
  )

describe("an option", () => {
  it.effect("takes a name of a plugin that is no path", () => {
    const rule = "expected letters, digits, _, . and -, the first a letter or digit"
    return reads("name", Options.listenerFlags.name, [
      ["portmapper", "portmapper"],
      ["2nd.port_mapper-x", "2nd.port_mapper-x"],
      ...["a/b", "..", "", "-x", "é"].map((text) => [text, rule] as const)
    ])
  })

  it.effect("takes a group of this host, or any number", () => {
    const rule = "expected the name or number of a group of this host"
    return reads("group", Options.listenerFlags.group, [
      ["0", 0],
      ["4000000", 4_000_000],
      ["root", 0],
      ["roo", rule],
      ["root:x", rule],
      ["nobody-of-this-name", rule]
    ])
  })

  it.effect("takes a Unix socket or a TCP port for the page", () =>
    reads("page", Options.listenerFlags.page, [
      ["unix:/run/page.sock", { path: "/run/page.sock" }],
      ["unix:", "expected a path after unix:"],
      ["127.0.0.1:9080", { host: "127.0.0.1", port: 9080 }],
      ["9080", "expected HOST:PORT, such as 127.0.0.1:7000 or, for IPv6, [::1]:7000, or unix:PATH"]
    ])
  )

  it.effect("takes names of hosts without a port, and short names of shared ports, several at once", () =>
    Effect.gen(function* () {
      const hosts = "expected names of hosts without a port, separated by commas"
      yield* reads("page-host", Options.listenerFlags.pageHost, [
        ["a.example, b", ["a.example", "b"]],
        ["a.example:80", hosts],
        ["a,,b", hosts]
      ])
      const shares = "expected names of letters, digits, _, . and -, at most 64 each, separated by commas"
      yield* reads("shares", Options.mapperFlags.shares, [
        ["web, api", ["web", "api"]],
        ["a".repeat(64), ["a".repeat(64)]],
        ["a".repeat(65), shares],
        ["shop/web", shares]
      ])
    })
  )

  it.effect("takes a mark that has bits, and only bits of its mask", () =>
    reads("accept-fwmark", Options.mapperFlags.acceptFwmark, [
      ["0x1", { mark: 1, mask: 0xffffffff }],
      ["256/0xf00", { mark: 0x100, mask: 0xf00 }],
      ["4294967295", { mark: 0xffffffff, mask: 0xffffffff }],
      ["0x80000000/0x80000000", { mark: 0x80000000, mask: 0x80000000 }],
      ["4294967296", "a mark has 32 bits"],
      ["1/4294967296", "a mark has 32 bits"],
      ["0", "a mark of 0 is on every packet"],
      ["0x3/0x1", "the mark has bits outside its mask"],
      ["x", "expected MARK or MARK/MASK, such as 0x1/0x1"],
      ["1/", "expected MARK or MARK/MASK, such as 0x1/0x1"]
    ])
  )
})

describe("the rule in DOCKER-USER", () => {
  it("is only for root, and only where the kernel redirects", () => {
    const mark = { mark: 1, mask: 1 }
    const given = (mode: "nat" | "proxy" | "routed" | undefined) =>
      Options.withDockerUser({ mode }, mark).dockerUserMark
    const root = Options.isRoot() ? mark : undefined
    assert.deepStrictEqual([given(undefined), given("nat")], [root, root])
    assert.deepStrictEqual([given("proxy"), given("routed")], [undefined, undefined])
  })
})

describe("the state", () => {
  it("is where --state says, else where the socket's is", () => {
    const options = { name: "p", socket: Option.some("/x/p.sock"), state: Option.none() }
    assert.strictEqual(Options.stateOf({ ...options, state: Option.some("/y") }), "/y")
    assert.strictEqual(Options.stateOf(options), Options.defaultState("/x/p.sock"))
    assert.strictEqual(Options.socketOf({ name: "p", socket: Option.none() }), Options.defaultSocket("p"))
  })
})
