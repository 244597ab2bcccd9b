import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import {
  maxLabelBytes,
  maxPrefixes,
  noPolicy,
  ownLabels,
  parseDuration,
  parseIdle,
  parsePolicy,
  policyText,
  sharedPolicy
} from "../../src/mapper/model/Labels.ts"

const labels = (all: Readonly<Record<string, string>>) => new Map(Object.entries(all))
const parse = (name: string, value: string) => parsePolicy(labels({ [`portmapper.${name}`]: value }))
const refusal = (name: string, value: string) =>
  Result.match(parse(name, value), { onSuccess: () => "accepted", onFailure: ({ message }) => message })

describe("labels", () => {
  it("give a policy, and those of other programs nothing", () => {
    const policy = Result.getOrThrow(
      parsePolicy(
        labels({
          "portmapper.mode": "auto",
          "portmapper.allow": "10.0.0.0/8, 2001:db8::1",
          "portmapper.proxy-protocol": "v2",
          "portmapper.udp-idle": "90s",
          "portmapper.rate": "20/s",
          "portmapper.connections": "5",
          "portmapper.share": "web",
          "portmapper.balance": "source",
          "com.example.portmapper": "x"
        })
      )
    )
    assert.strictEqual(policy.allow?.length, 2)
    assert.deepStrictEqual(
      { ...policy, allow: undefined, udpIdle: policy.udpIdle && Duration.toMillis(policy.udpIdle) },
      {
        ...noPolicy,
        ...{ mode: undefined, allow: undefined, proxyProtocol: "v2", udpIdle: 90_000 },
        ...{ connections: 5, rate: 20, ratePerSource: undefined, share: "web", balance: "source" }
      }
    )
  })

  for (const [name, value, rule] of [
    ["mode", "NAT", "one of auto, nat, engine, proxy, routed"],
    ["allow", "", "addresses or prefixes such as 10.0.0.0/8,2001:db8::/32 (one is empty)"],
    ["allow", "10.0.0.1,", "(one is empty)"],
    ["allow", "10.0.0.0/33", "10.0.0.0/33: "],
    ["proxy-protocol", "v3", "v1 or v2"],
    ["udp-idle", "999ms", "a duration of at least 1s"],
    ["udp-idle", "forever", "a duration such as 90s or 5m"],
    ["rate-per-source", "020/s", "with /s behind it, such as 20/s"],
    ...["", "-web", ".web", "a".repeat(65), "a/b/c", `shop/${"a".repeat(65)}`, "shop/", "/", "shop/.web"].map(
      (name) => ["share", name, "a name of at most 64 letters"] as const
    ),
    ["balance", "least", "random or source"],
    ["health", "no", "follow or ignore"],
    ["wake", "yes", "on or off"],
    ["wake", "", "on or off"],
    ["wake-timeout", "0s", "a duration of at least 1s"],
    ["wake-timeout", "soon", "a duration such as 90s or 5m"],
    ["wake-count", "0", "a number from 1 to 1024"],
    ["wake-count", "1025", "a number from 1 to 1024"],
    ["wake-count", "1.5", "a number from 1 to 1024"],
    ["sleep", "9s", "a duration of at least 10s"],
    ["sleep", "10", "a duration such as 90s or 5m"],
    ["alow", "10.0.0.1", "one of the known labels (the nearest is portmapper.allow): "],
    ["Mode", "nat", "one of the known labels (the nearest is portmapper.mode): "]
  ] as const)
    it(`refuse portmapper.${name}=${value.slice(0, 20)} with the label, the value and the rule`, () => {
      const text = refusal(name, value)
      assert.include(text, `bad request: Labels["portmapper.${name}"]`)
      assert.include(text, rule)
    })

  it("say whether a client wakes a container, how long it waits, how many wake it, and when it is stopped again", () => {
    const own = { "portmapper.wake-timeout": "90s", "portmapper.wake-count": "3", "portmapper.sleep": "10m" }
    assert.deepInclude(Result.getOrThrow(parsePolicy(labels({ "portmapper.wake": "on", ...own }))), {
      ...{ wake: true, wakeTimeout: Duration.seconds(90), wakeCount: 3, sleep: Duration.minutes(10) }
    })
    assert.deepInclude(Result.getOrThrow(parse("wake", "off")), { wake: false })
  })

  it("name a service by at most 64 characters, in front of which a project may stand", () => {
    for (const name of ["web", "a".repeat(64), "/web", `.${"p".repeat(80)}/${"a".repeat(64)}`])
      assert.strictEqual(refusal("share", name), "accepted")
  })

  it("refuse every wrong one of them in one error", () => {
    const parsed = parsePolicy(labels({ "portmapper.mode": "x", "portmapper.balance": "y" }))
    assert.strictEqual(Result.isFailure(parsed) ? parsed.failure.issues.length : 0, 2)
  })

  it("are bounded in bytes and in prefixes", () => {
    assert.include(refusal("publish", "x".repeat(maxLabelBytes)), `at most ${maxLabelBytes} bytes of them`)
    const prefixes = (count: number) => Array.from({ length: count }, () => "::/0").join(",")
    assert.strictEqual(refusal("allow", prefixes(maxPrefixes)), "accepted")
    assert.include(refusal("allow", prefixes(maxPrefixes + 1)), "(there are 1001)")
  })

  it("are the same policy in any order, whatever other programs' say", () => {
    const one = labels({ "portmapper.mode": "nat", "portmapper.share": "web", a: "1" })
    const other = labels({ b: "2", "portmapper.share": "web", "portmapper.mode": "nat" })
    assert.strictEqual(policyText(one), policyText(other))
    assert.strictEqual(policyText(labels({ a: "1" })), "")
    assert.deepStrictEqual([...ownLabels(one).keys()], ["portmapper.mode", "portmapper.share"])
  })

  it("of a service's members are compared by what decides who gets in, defaults written out or not", () => {
    const common = (all: Readonly<Record<string, string>>) => sharedPolicy(labels(all))
    assert.deepStrictEqual(
      common({ "portmapper.mode": "auto", "portmapper.balance": "random", "portmapper.publish": "80" }),
      common({ "portmapper.container": "web/1" })
    )
    const written = {
      "portmapper.wake": "off",
      "portmapper.wake-timeout": "30s",
      "portmapper.wake-count": "1"
    }
    assert.deepStrictEqual(common(written), common({}))
    for (const [name, value] of [
      ["allow", "10.0.0.1"],
      ["wake", "on"],
      ["wake-timeout", "5s"],
      ["wake-count", "2"],
      ["sleep", "1m"]
    ])
      assert.notDeepEqual(common({ [`portmapper.${name}`]: value ?? "" }), common({}), name)
  })
})

describe("a duration", () => {
  for (const [text, millis] of [
    ["1500ms", 1500],
    ["90s", 90_000],
    ["5m", 300_000],
    ["1h", 3_600_000],
    ["90 seconds", 90_000],
    ["0s", 0]
  ] as const)
    it(`${text}: ${millis} ms`, () =>
      assert.strictEqual(Duration.toMillis(Result.getOrThrow(parseDuration(text))), millis))

  it("is neither negative nor infinite nor without a unit", () => {
    for (const text of ["-1s", "infinity", "90", "", "s", "1d2h"])
      assert.isTrue(Result.isFailure(parseDuration(text)), text)
  })

  it("of idleness is at least a second", () =>
    assert.deepStrictEqual(
      ["1s", "999ms"].map((text) => Result.isSuccess(parseIdle(text))),
      [true, false]
    ))
})
