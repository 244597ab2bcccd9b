import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { decodeText, decodeValue } from "../../src/protocol/GoSchema.ts"
import { MapPortsRequest, UnmapPortsRequest } from "../../src/protocol/Messages.ts"

/** The message encoded again, or the text of the error. */
const read = <T, E>(schema: Schema.Codec<T, E>, json: string): E | string =>
  Result.match(decodeText(schema)(json), {
    onFailure: (error): E | string => error.message,
    onSuccess: (message) => Schema.encodeSync(schema)(message)
  })

const req = { Proto: 0, BackendIP: "", BackendPort: 0, FrontendIP: "", FrontendPort: 0, FrontendPortEnd: 0 }
const binding = {
  Proto: 0,
  BackendIP: "",
  BackendPort: 0,
  FrontendIP: "",
  FrontendPort: 0,
  DiscardReq: false,
  AllowForwarding: false,
  NAT: null,
  Error: null
}

describe("a struct", () => {
  // Merging anew each time would take an hour.
  it("merges an object that is repeated half a million times", () => {
    const json = `{${Array.from({ length: 500_000 }, (_, index) => `"Labels":{"${index % 3}":"${index}"}`).join(",")}}`
    assert.deepStrictEqual(read(MapPortsRequest, json), {
      Reqs: null,
      Labels: { 0: "499998", 1: "499999", 2: "499997" }
    })
  })

  it("merges repeated objects from the last null on", () => {
    assert.deepStrictEqual(
      read(
        MapPortsRequest,
        '{"Labels":{"a":"1"},"Labels":{"b":"2"},"Labels":null,"Labels":{"c":"3"},"Labels":{"d":"4"}}'
      ),
      { Reqs: null, Labels: { c: "3", d: "4" } }
    )
  })

  it.each([
    ["takes a missing field for its zero value", "{}", { Reqs: null, Labels: null }],
    ["takes null for its zero value", "null", { Reqs: null, Labels: null }],
    ["keeps null and empty apart", '{"Reqs":[],"Labels":{}}', { Reqs: [], Labels: {} }],
    ["takes null in a list for the zero element", '{"Reqs":[null]}', { Reqs: [req], Labels: null }],
    ["ignores unknown fields", '{"X":1,"Reqs":[{"Y":[]}]}', { Reqs: [req], Labels: null }],
    [
      "matches keys whatever their case",
      '{"REQS":[{"pRoTo":6}]}',
      { Reqs: [{ ...req, Proto: 6 }], Labels: null }
    ],
    [
      "folds U+017F and the Kelvin sign",
      '{"req\u017f":[{"bac\u212aendPort":1}]}',
      { Reqs: [{ ...req, BackendPort: 1 }], Labels: null }
    ],
    [
      "takes the last of repeated scalars",
      '{"Reqs":[{"Proto":6,"proto":17}]}',
      { Reqs: [{ ...req, Proto: 17 }], Labels: null }
    ],
    [
      "does not let null override",
      '{"Reqs":[{"Proto":6,"Proto":null}]}',
      { Reqs: [{ ...req, Proto: 6 }], Labels: null }
    ],
    [
      "lets an empty address override",
      '{"Reqs":[{"BackendIP":"::1","BackendIP":""}]}',
      { Reqs: [req], Labels: null }
    ],
    [
      "merges repeated Labels",
      '{"Labels":{"a":"1","b":"2"},"labels":{"a":"3"}}',
      { Reqs: null, Labels: { a: "3", b: "2" } }
    ],
    [
      "empties Labels by null",
      '{"Labels":{"a":"1"},"Labels":null,"Labels":{"b":null}}',
      { Reqs: null, Labels: { b: "" } }
    ]
  ] as const)("%s", (_, json, expected) => {
    assert.deepStrictEqual(read(MapPortsRequest, json), expected)
  })

  it.each([
    ["merges repeated NAT", '{"FromPort":1},"NAT":{"FromAddr":"::1"}', { FromAddr: "::1", FromPort: 1 }],
    ["forgets NAT by null", '{"FromPort":1},"nat":null', null],
    ["begins a new NAT after null", '{"FromPort":1},"NAT":null,"NAT":{}', { FromAddr: "", FromPort: 0 }]
  ] as const)("%s", (_, nat, expected) => {
    assert.deepStrictEqual(read(UnmapPortsRequest, `{"PortBindings":[{"NAT":${nat}}]}`), {
      PortBindings: [{ ...binding, NAT: expected }],
      Labels: null
    })
  })

  it.each([
    ["10.0.0.1", "10.0.0.1"],
    ["::FFFF:A00:1", "::ffff:10.0.0.1"],
    ["::ffff:10.0.0.1%eth0", "::ffff:10.0.0.1%eth0"],
    ["FE80::1%Eth0", "fe80::1%Eth0"],
    ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"],
    ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"]
  ])("writes the address %s as Go does: %s", (given, expected) => {
    assert.deepStrictEqual(read(MapPortsRequest, JSON.stringify({ Reqs: [{ BackendIP: given }] })), {
      Reqs: [{ ...req, BackendIP: expected }],
      Labels: null
    })
  })
})

describe("a refused message", () => {
  it.each([
    ["[]", "[]: must be an object"],
    ['"x"', '"x": must be an object'],
    ['{"Reqs":{}}', "Reqs = {}: must be an array"],
    ['{"Reqs":[1]}', "Reqs[0] = 1: must be an object"],
    ['{"Reqs":[],"reqs":[]}', "Reqs = []: must be given once"],
    ['{"Reqs":null,"Reqs":[]}', "Reqs = []: must be given once"],
    [
      '{"Reqs":[{},{"FrontendPort":65536}]}',
      "Reqs[1].FrontendPort = 65536: must be an integer from 0 to 65535"
    ],
    ['{"Reqs":[{"FrontendPort":80.0}]}', "Reqs[0].FrontendPort = 80.0: must be an integer from 0 to 65535"],
    ['{"Reqs":[{"FrontendPort":-0}]}', "Reqs[0].FrontendPort = -0: must be an integer from 0 to 65535"],
    ['{"Reqs":[{"Proto":"tcp"}]}', 'Reqs[0].Proto = "tcp": must be an integer'],
    ['{"Reqs":[{"Proto":"x","Proto":6}]}', 'Reqs[0].Proto = "x": must be an integer'],
    ['{"Reqs":[{"BackendIP":12}]}', "Reqs[0].BackendIP = 12: must be an IPv4 or IPv6 address"],
    ['{"Reqs":[{"BackendIP":"10.0.0"}]}', 'Reqs[0].BackendIP = "10.0.0": must be an IPv4 or IPv6 address'],
    [
      '{"Reqs":[{"BackendIP":"fe80::1%"}]}',
      'Reqs[0].BackendIP = "fe80::1%": must be an IPv4 or IPv6 address (the zone after % is empty)'
    ],
    [
      '{"Reqs":[{"BackendIP":"10.0.0.1%eth0"}]}',
      'Reqs[0].BackendIP = "10.0.0.1%eth0": must be an IPv4 or IPv6 address (only an IPv6 address has a zone)'
    ],
    ['{"Labels":[]}', "Labels = []: must be an object"],
    [
      '{"Labels":{"a.b":1,"c":"d","e":[]}}',
      'Labels["a.b"] = 1: must be a string; Labels.e = []: must be a string'
    ],
    ['{"Labels":{"a":1},"Labels":null}', "Labels.a = 1: must be a string"],
    ['{"Reqs":[] trailing', "invalid character 't' after object key:value pair"],
    ['{"Reqs":[]} trailing', "invalid character 't' after top-level value"]
  ])("%s", (json, expected) => {
    assert.strictEqual(read(MapPortsRequest, json), `bad request: ${expected}`)
  })

  it.each([
    ['"NAT":"0.0.0.0:80"', 'NAT = "0.0.0.0:80": must be an object'],
    ['"NAT":{"FromPort":"x"},"NAT":null', 'NAT.FromPort = "x": must be an integer from 0 to 65535'],
    ['"NAT":[],"NAT":null', "NAT = []: must be an object"],
    ['"Error":5', "Error = 5: must be a string or null"],
    ['"DiscardReq":1', "DiscardReq = 1: must be true or false"]
  ])("a binding with %s", (field, expected) => {
    const text = read(UnmapPortsRequest, `{"PortBindings":[{${field}}]}`)
    assert.strictEqual(text, `bad request: PortBindings[0].${expected}`)
  })

  it("is reported with every path, value and rule", () => {
    const result = decodeValue(MapPortsRequest)({
      Reqs: [{ Proto: 1.5, FrontendPort: "80" }, { BackendIP: "x".repeat(100) }],
      Labels: 7
    })
    assert.deepStrictEqual(Result.isFailure(result) ? result.failure.issues : [], [
      { path: "Reqs[0].Proto", value: "1.5", rule: "an integer" },
      { path: "Reqs[0].FrontendPort", value: '"80"', rule: "an integer from 0 to 65535" },
      { path: "Reqs[1].BackendIP", value: `"${"x".repeat(58)}…`, rule: "an IPv4 or IPv6 address" },
      { path: "Labels", value: "7", rule: "an object" }
    ])
  })

  it("contains a Map instead of a plain object, whose entries would be lost", () => {
    const result = decodeValue(MapPortsRequest)({ Labels: new Map([["a", "b"]]) })
    assert.strictEqual(
      Result.isFailure(result) ? result.failure.message : "",
      "bad request: Labels = {}: must be an object"
    )
  })

  it("reports only the first fault of a large value", () => {
    const result = decodeValue(UnmapPortsRequest)({ PortBindings: Array.from({ length: 20_000 }, () => 1) })
    assert.deepStrictEqual(Result.isFailure(result) ? result.failure.issues : [], [
      { path: "PortBindings[0]", value: "1", rule: "an object" }
    ])
  })

  it("is summarized where there are many faults", () => {
    const result = decodeValue(MapPortsRequest)({ Reqs: Array.from({ length: 20 }, () => 1) })
    const message = Result.isFailure(result) ? result.failure.message : ""
    assert.match(
      message,
      /^bad request: Reqs\[0\] = 1: must be an object; .*Reqs\[7\] = 1: must be an object; and 12 more$/
    )
  })
})
