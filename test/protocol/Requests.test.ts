import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { decodeText, decodeValue } from "../../src/protocol/GoSchema.ts"
import { MapPortsRequest, UnmapPortsRequest } from "../../src/protocol/Messages.ts"
import { groupOf, releaseOf } from "../../src/protocol/Requests.ts"
import { wireEntry } from "../support/requests.ts"
import engine from "../vectors/engine.json" with { type: "json" }

const req = wireEntry("tcp 0.0.0.0:8080 172.17.0.2:80")
const binding = {
  Proto: 6,
  BackendIP: "172.17.0.2",
  BackendPort: 80,
  FrontendIP: "0.0.0.0",
  FrontendPort: 8080
}

const group = (...reqs: ReadonlyArray<object>) =>
  Result.flatMap(decodeValue(MapPortsRequest)({ Reqs: reqs, Labels: null }), groupOf)
const release = (...bindings: ReadonlyArray<object>) =>
  Result.flatMap(decodeValue(UnmapPortsRequest)({ PortBindings: bindings }), releaseOf)

/** The message without its prefix, or `granted`. */
const verdict = <A, E extends { readonly message: string }>(result: Result.Result<A, E>): string =>
  Result.match(result, {
    onFailure: ({ message }) => message.replace(/^bad request: /, ""),
    onSuccess: () => "granted"
  })

describe("groupOf", () => {
  it("turns a request into a group, with a frontend without an address in the backend's family", () => {
    const labels = { "a.b": "c" }
    const reqs = [
      { ...req, FrontendIP: "" },
      { ...req, Proto: 17, BackendIP: "fd00::2", FrontendIP: "" },
      { ...req, Proto: 132, FrontendIP: "::FFFF:10.0.0.1" }
    ]
    const backend = { address: addressUnsafe("172.17.0.2"), port: 80 }
    const result = Result.flatMap(decodeValue(MapPortsRequest)({ Reqs: reqs, Labels: labels }), groupOf)
    assert.deepStrictEqual(Result.getOrThrow(result), {
      entries: [
        { protocol: "tcp", host: addressUnsafe("0.0.0.0"), requestedAddress: "", backend },
        {
          protocol: "udp",
          host: addressUnsafe("::"),
          requestedAddress: "",
          backend: { ...backend, address: addressUnsafe("fd00::2") }
        },
        {
          protocol: "sctp",
          host: addressUnsafe("::ffff:10.0.0.1"),
          requestedAddress: "::ffff:10.0.0.1",
          backend
        }
      ],
      ports: { _tag: "Exact", port: 8080 },
      labels: new Map([["a.b", "c"]])
    })
  })

  it.each([
    [0, 0, { _tag: "Ephemeral" }],
    [65535, 65535, { _tag: "Exact", port: 65535 }],
    [1, 65535, { _tag: "Range", first: 1, last: 65535 }]
  ])("reads the ports %i-%i", (first, last, expected) => {
    const result = group({ ...req, FrontendPort: first, FrontendPortEnd: last })
    assert.deepStrictEqual(Result.getOrThrow(result).ports, expected)
  })

  it.each([[null], [[]]])("reads a request without entries (%j) as an empty group", (reqs) => {
    const result = Result.flatMap(decodeValue(MapPortsRequest)({ Reqs: reqs }), groupOf)
    assert.deepStrictEqual(Result.getOrThrow(result), {
      entries: [],
      ports: { _tag: "Ephemeral" },
      labels: new Map()
    })
  })

  it.each([
    [{ Proto: 1 }, "Proto = 1: must be 6 (tcp), 17 (udp) or 132 (sctp)"],
    [{ BackendIP: "" }, 'BackendIP = "": must be the address of the container, a unicast one'],
    [{ BackendIP: "0.0.0.0" }, 'BackendIP = "0.0.0.0": must be the address of the container, a unicast one'],
    [{ BackendIP: "::" }, 'BackendIP = "::": must be the address of the container, a unicast one'],
    [
      { BackendIP: "::ffff:0.0.0.0" },
      'BackendIP = "::ffff:0.0.0.0": must be the address of the container, a unicast one'
    ],
    [
      { BackendIP: "224.0.0.1" },
      'BackendIP = "224.0.0.1": must be the address of the container, a unicast one'
    ],
    [{ BackendIP: "ff02::1" }, 'BackendIP = "ff02::1": must be the address of the container, a unicast one'],
    [
      { BackendIP: "255.255.255.255" },
      'BackendIP = "255.255.255.255": must be the address of the container, a unicast one'
    ],
    [
      { BackendIP: "fd00::2%eth0" },
      'BackendIP = "fd00::2%eth0": must be a link-local IPv6 address where it has a zone'
    ],
    [{ BackendIP: "fe80::2%eth0" }, "granted"],
    [{ BackendPort: 0 }, "BackendPort = 0: must be an integer from 1 to 65535"],
    [
      { FrontendIP: "239.1.2.3" },
      'FrontendIP = "239.1.2.3": must be an address of this host, a unicast or the unspecified one'
    ],
    [
      { FrontendIP: "::ffff:224.0.0.1" },
      'FrontendIP = "::ffff:224.0.0.1": must be an address of this host, a unicast or the unspecified one'
    ],
    [
      { FrontendIP: "::ffff:169.254.1.1%eth0" },
      'FrontendIP = "::ffff:169.254.1.1%eth0": must be a link-local IPv6 address where it has a zone'
    ],
    [{ FrontendIP: "fe80::1%eth0" }, "granted"],
    [{ FrontendIP: "fe80::1" }, "granted"],
    [{ FrontendPortEnd: 8079 }, "FrontendPortEnd = 8079: must be at least FrontendPort, 8080"],
    [{ FrontendPortEnd: undefined }, "FrontendPortEnd = 0: must be at least FrontendPort, 8080"],
    [{ FrontendPort: 0 }, "FrontendPortEnd = 8080: must be 0 where FrontendPort is 0 (any free port)"]
  ])("judges an entry with %j: %s", (fields, expected) => {
    assert.strictEqual(
      verdict(group({ ...req, ...fields })),
      expected === "granted" ? expected : `Reqs[0].${expected}`
    )
  })

  it.each([
    [
      "another port",
      [{}, { FrontendIP: "::", FrontendPort: 8081, FrontendPortEnd: 8081 }],
      "Reqs[1].FrontendPort = 8081: must be 8080 as in Reqs[0], since the entries of one group get the same port"
    ],
    [
      "another range",
      [{}, { FrontendIP: "::", FrontendPortEnd: 8090 }],
      "Reqs[1].FrontendPortEnd = 8090: must be 8080 as in Reqs[0], since the entries of one group get the same port"
    ],
    ["the same frontend twice", [{}, {}], "0.0.0.0:8080/tcp is requested twice, for 172.17.0.2:80"],
    [
      "the same frontend twice, once by no address",
      [{}, { FrontendIP: "", BackendPort: 81 }],
      "0.0.0.0:8080/tcp is requested twice, for 172.17.0.2:80 and for 172.17.0.2:81"
    ],
    [
      "the same frontend twice, once IPv4-mapped",
      [{ FrontendIP: "10.0.0.1" }, { FrontendIP: "::ffff:10.0.0.1" }],
      "[::ffff:10.0.0.1]:8080/tcp is requested twice, for 172.17.0.2:80"
    ],
    [
      "a frontend that covers another with another backend port",
      [{}, { FrontendIP: "10.0.0.1", BackendPort: 81 }],
      "10.0.0.1:8080/tcp is requested for 172.17.0.2:81, and 0.0.0.0:8080/tcp, which covers it, for 172.17.0.2:80"
    ],
    [
      "a frontend that covers an earlier one with another backend",
      [{ FrontendIP: "::1", BackendIP: "fd00::2" }, { FrontendIP: "::" }],
      "[::1]:8080/tcp is requested for [fd00::2]:80, and [::]:8080/tcp, which covers it, for 172.17.0.2:80"
    ],
    [
      "frontends that cover each other, for one backend",
      [{}, { FrontendIP: "10.99.0.1" }, { FrontendIP: "::" }],
      "granted"
    ],
    [
      "one backend, once IPv4-mapped",
      [{}, { FrontendIP: "10.0.0.1", BackendIP: "::ffff:172.17.0.2" }],
      "granted"
    ],
    ["two families, each with its backend", [{}, { FrontendIP: "::", BackendIP: "fd00::2" }], "granted"],
    ["two protocols on one frontend", [{}, { Proto: 17, BackendPort: 81 }], "granted"],
    [
      "two addresses, each with its backend",
      [{ FrontendIP: "10.0.0.1" }, { FrontendIP: "10.0.0.2", BackendPort: 81 }],
      "granted"
    ],
    [
      "the same address in two zones",
      [{ FrontendIP: "fe80::1%eth0" }, { FrontendIP: "fe80::1%eth1", BackendPort: 81 }],
      "granted"
    ]
  ])("judges a group of %s", (_, fields, expected) => {
    assert.strictEqual(verdict(group(...fields.map((some) => ({ ...req, ...some })))), expected)
  })

  it("reports every fault of a request", () => {
    const result = group(
      { ...req, Proto: 0, BackendIP: "", BackendPort: 0 },
      { ...req, FrontendPortEnd: 1 },
      { ...req, FrontendIP: "::" },
      { ...req, FrontendIP: "::" }
    )
    assert.deepStrictEqual(Result.isFailure(result) ? result.failure.issues : [], [
      { path: "Reqs[0].Proto", value: "0", rule: "6 (tcp), 17 (udp) or 132 (sctp)" },
      { path: "Reqs[0].BackendIP", value: '""', rule: "the address of the container, a unicast one" },
      { path: "Reqs[0].BackendPort", value: "0", rule: "an integer from 1 to 65535" },
      { path: "Reqs[1].FrontendPortEnd", value: "1", rule: "at least FrontendPort, 8080" },
      {
        path: "Reqs[3].FrontendIP",
        value: '"::"',
        rule: "another frontend than that of Reqs[2]",
        text: "[::]:8080/tcp is requested twice, for 172.17.0.2:80"
      }
    ])
  })
})

describe("releaseOf", () => {
  it("turns a request into the release it asks for", () => {
    const result = Result.flatMap(
      decodeValue(UnmapPortsRequest)({
        PortBindings: [
          { ...binding, FrontendIP: "" },
          { ...binding, Proto: 17, BackendIP: "", BackendPort: 0 },
          { ...binding, FrontendPort: 0 },
          { ...binding, FrontendIP: "224.0.0.1" }
        ],
        Labels: { "portmapper.mode": "no such mode" }
      }),
      releaseOf
    )
    const backend = { address: addressUnsafe("172.17.0.2"), port: 80 }
    const any = addressUnsafe("0.0.0.0")
    assert.deepStrictEqual(Result.getOrThrow(result), {
      bindings: [
        { protocol: "tcp", host: any, port: 8080, backend },
        { protocol: "udp", host: any, port: 8080, backend: { address: undefined, port: 0 } },
        { protocol: "tcp", host: any, port: 0, backend },
        { protocol: "tcp", host: addressUnsafe("224.0.0.1"), port: 8080, backend }
      ],
      labels: new Map([["portmapper.mode", "no such mode"]])
    })
  })

  it("releases nothing for an empty request", () => {
    assert.deepStrictEqual(Result.getOrThrow(release()), { bindings: [], labels: new Map() })
  })

  it.each([
    [{ Proto: 1 }, "Proto = 1: must be 6 (tcp), 17 (udp) or 132 (sctp)"],
    [{ FrontendIP: "", BackendIP: "" }, 'FrontendIP = "": must be an address where no backend is named'],
    [
      { FrontendPort: 0, BackendIP: "" },
      "FrontendPort = 0: must be an integer from 1 to 65535 where no backend is named"
    ],
    [
      { FrontendPort: 0, BackendPort: 0 },
      "FrontendPort = 0: must be an integer from 1 to 65535 where no backend is named"
    ]
  ])("refuses a binding with %j: %s", (fields, expected) => {
    assert.strictEqual(verdict(release({ ...binding, ...fields })), `PortBindings[0].${expected}`)
  })
})

describe("a request recorded from an Engine", () => {
  it.each(engine.scenarios)("is valid: $scenario", ({ requests }) => {
    for (const { path, body } of requests) {
      if (path === "/PortMapper.MapPorts" && body !== "") {
        assert.strictEqual(verdict(Result.flatMap(decodeText(MapPortsRequest)(body), groupOf)), "granted")
      }
      if (path === "/PortMapper.UnmapPorts") {
        assert.strictEqual(verdict(Result.flatMap(decodeText(UnmapPortsRequest)(body), releaseOf)), "granted")
      }
    }
  })
})
