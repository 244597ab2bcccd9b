import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Arbitrary from "effect/Arbitrary"
import { addressUnsafe, fromOctets } from "../../src/protocol/Address.ts"
import { endpointText, frontendText } from "../../src/protocol/PortBinding.ts"
import {
  atInterface,
  groupsOf,
  interfaceNameRule,
  namesPorts,
  type Publish,
  parsePublish,
  parseUnpublish,
  publishForm,
  publishText,
  type Unpublish,
  unpublishForm,
  unpublishText
} from "../../src/protocol/PublishSyntax.ts"
import verdicts from "./publish/verdicts.json" with { type: "json" }

const v4 = addressUnsafe("172.17.0.2")
const v6 = addressUnsafe("fd00::2")

/** Each group in Docker's form: `HOSTIP|HOSTPORT|CONTAINERPORT/PROTO`, once for a host address that is not given. */
const asDocker = (text: string): ReadonlyArray<string> | null =>
  Result.match(
    Result.flatMap(parsePublish(text), (publish) => groupsOf(publish, { v4, v6 }, new Map())),
    {
      onFailure: () => null,
      onSuccess: (groups) =>
        groups.map(({ entries, ports }) => {
          const [entry] = entries
          const host = entries.length === 2 ? "" : entry?.requestedAddress
          const port =
            ports._tag === "Range" ? `${ports.first}-${ports.last}` : ports._tag === "Exact" ? ports.port : ""
          return `${host}|${port}|${entry?.backend.port}/${entry?.protocol}`
        })
    }
  )

const failure = (result: Result.Result<unknown, string>) =>
  Result.isFailure(result) ? result.failure : "accepted"

describe("the argument of -p", () => {
  it.each(verdicts)("is parsed as Docker does: '$text'", ({ text, ports }) => {
    // Docker writes any free port as 0 or as nothing.
    assert.deepStrictEqual(asDocker(text), ports?.map((port) => port.replace("|0|", "||")) ?? null)
  })

  it.each([
    ["", "expected [HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]"],
    ["8080:", "the container port is missing; expected [HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]"],
    ["0", 'container port "0": ports are 1 to 65535'],
    ["0-1:80-81", 'host port "0-1": ports are 1 to 65535'],
    ["web:80", 'host port "web": expected PORT or FIRST-LAST'],
    ["8080:80-", 'container port "80-": expected PORT or FIRST-LAST'],
    ["90-80:80", 'host port "90-80": the range ends before it starts'],
    ["80/icmp", 'protocol "icmp": expected tcp, udp, sctp'],
    ["80/tcp/udp", 'protocol "tcp/udp": expected tcp, udp, sctp'],
    [
      "::/0:443:443",
      'host address "::/0": not an IPv4 or IPv6 address (IPv6 in brackets); expected [HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]'
    ],
    [
      "10.0.0.0/8:443:443/udp",
      'host address "10.0.0.0/8": not an IPv4 or IPv6 address; which clients are let in says the label portmapper.allow=10.0.0.0/8'
    ],
    ["localhost:8080:80", 'host address "localhost": an address is wanted, 127.0.0.1 or [::1]'],
    ["Localhost:8080:80", 'host address "Localhost": an address is wanted, 127.0.0.1 or [::1]'],
    ["[ip6-localhost]:8080:80", 'host address "ip6-localhost": an address is wanted, 127.0.0.1 or [::1]'],
    ["*:8080:80", 'host address "*": for every address leave it out'],
    ["all:8080:80", 'host address "all": for every address leave it out'],
    ["eth0@if7:8080:80", `host address "eth0@if7": not an IPv4 or IPv6 address, nor ${interfaceNameRule}`],
    ["1.2.3:8080:80", 'host address "1.2.3": not an IPv4 or IPv6 address'],
    ["1.2.3.4:80", "for any free host port leave it empty: 1.2.3.4::80"],
    ["[::1]:80", "for any free host port leave it empty: [::1]::80"],
    ["[::1]:1:2:3", "too many colons; expected [HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]"],
    [
      "[::1%a/b]:8080:80/tcp",
      'host address "::1%a/b": not an IPv4 or IPv6 address (IPv6 in brackets); expected [HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]'
    ],
    [
      "80::1%eth0]:8080:80",
      'host address "80::1%eth0]": not an IPv4 or IPv6 address (IPv6 in brackets); expected [HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]'
    ],
    [
      "::80:80",
      'host address ":": not an IPv4 or IPv6 address (IPv6 in brackets); expected [HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]'
    ],
    [
      "7000-7002:80-81",
      'host port "7000-7002" for 2 container ports (80-81); expected as many, none, or one container port'
    ],
    ["eth0::80", "an interface needs an exact host port for each container port: eth0:PORT:80"],
    ["eth0:0:80", "an interface needs an exact host port for each container port: eth0:PORT:80"],
    ["eth0:8000-8010:80", "an interface needs an exact host port for each container port: eth0:PORT:80"],
    ["[eth0]:8080:80", `host address "eth0": not an IPv4 or IPv6 address, nor ${interfaceNameRule}`],
    [
      "a-name-of-letters:8080:80",
      `host address "a-name-of-letters": not an IPv4 or IPv6 address, nor ${interfaceNameRule}`
    ],
    ["0:80-81", 'host port "0" for 2 container ports (80-81); expected as many, none, or one container port']
  ])("is refused with what is wrong: '%s'", (text, expected) => {
    assert.strictEqual(failure(parsePublish(text)), expected)
  })
})

describe("an interface in place of an address", () => {
  const at = (text: string, name: string) =>
    Result.match(atInterface(Result.getOrThrow(parsePublish(text)), name), {
      onFailure: (rule) => rule,
      onSuccess: publishText
    })

  it.each(["eth0:8080:80", "wg0:7000-7002:80-82/udp", "enp3s0.100:53:53/sctp", "_:1:1"])(
    "is kept as written: '%s'",
    (text) => assert.strictEqual(publishText(Result.getOrThrow(parsePublish(text))), text)
  )

  it("is given once, with an exact port", () => {
    assert.strictEqual(at("8080:80", "eth0"), "eth0:8080:80")
    assert.strictEqual(at("eth0:8080:80", "eth0"), "eth0:8080:80")
    assert.strictEqual(at("wg0:8080:80", "eth0"), "published at wg0 already, so not at the interface eth0")
    assert.strictEqual(
      at("[::1]:8080:80", "eth0"),
      "published at [::1] already, so not at the interface eth0"
    )
    assert.strictEqual(
      at("80-81", "eth0"),
      "an interface needs an exact host port for each container port: eth0:PORT:80-81"
    )
  })
})

describe("the argument of unmap -p", () => {
  it("names ports of the host, with a container port only those that lead to it", () => {
    const names = (text: string, hostPort: number, containerPort: number) =>
      namesPorts(Result.getOrThrow(parseUnpublish(text)), hostPort, containerPort)
    assert.isTrue(names("8080", 8080, 90))
    assert.isFalse(names("8080", 8081, 90))
    assert.isTrue(names("8080:80", 8080, 80))
    assert.isFalse(names("8080:80", 8080, 90))
    assert.isTrue(names("8000-8010:80", 8005, 80))
    assert.isTrue(names("8000-8010:80-90", 8005, 85))
    assert.isFalse(names("8000-8010:80-90", 8005, 80))
  })

  it.each([
    ["8080", "8080"],
    ["8080/TCP", "8080"],
    ["8080-8090/udp", "8080-8090/udp"],
    ["127.0.0.1:8080", "127.0.0.1:8080"],
    ["[::1]:53/udp", "[::1]:53/udp"],
    ["::1:53/udp", "[::1]:53/udp"],
    ["[fe80::1%eth0]:53", "[fe80::1%eth0]:53"],
    ["eth0:8080", "eth0:8080"],
    ["br-0.100:53-54/udp", "br-0.100:53-54/udp"],
    ["8080:80", "8080:80"],
    ["127.0.0.1:8080:80/udp", "127.0.0.1:8080:80/udp"],
    ["[::1]:8000-8001:80-81", "[::1]:8000-8001:80-81"],
    ["eth0:8000-8010:80-90", "eth0:8000-8010:80-90"],
    ["8000-8010:80", "8000-8010:80"]
  ])("is a host side, or the whole of what map -p takes: '%s'", (text, written) => {
    assert.strictEqual(unpublishText(Result.getOrThrow(parseUnpublish(text))), written)
  })

  it.each([
    ["", `expected ${unpublishForm}`],
    ["8080:", `the container port is missing; expected ${publishForm}`],
    ["8080:80-", 'container port "80-": expected PORT or FIRST-LAST'],
    [":80/tcp", `the host port is missing; expected ${unpublishForm}`],
    ["127.0.0.1::80", `the host port is missing; expected ${unpublishForm}`],
    ["127.0.0.1:", `the host port is missing; expected ${unpublishForm}`],
    ["0", 'host port "0": ports are 1 to 65535'],
    ["localhost:8080", 'host address "localhost": an address is wanted, 127.0.0.1 or [::1]'],
    [
      "web.example.com.:8080",
      `host address "web.example.com.": not an IPv4 or IPv6 address, nor ${interfaceNameRule}`
    ]
  ])("is refused with what is wrong: '%s'", (text, expected) => {
    assert.strictEqual(failure(parseUnpublish(text)), expected)
  })
})

describe("groups", () => {
  const written = (text: string, to: Parameters<typeof groupsOf>[1]) =>
    Result.match(groupsOf(Result.getOrThrow(parsePublish(text)), to, new Map([["a", "b"]])), {
      onFailure: (rule): unknown => rule,
      onSuccess: (groups) =>
        groups.map(({ entries, ports }) => ({
          ports,
          entries: entries.map(
            ({ protocol, host, backend }) =>
              `${frontendText({ protocol, host, port: 0 })} ${endpointText(backend)}`
          )
        }))
    })

  it("lead each frontend to the backend of its family, and IPv6 to IPv4 where there is no other", () => {
    assert.deepStrictEqual(written("8080:80", { v4, v6 }), [
      {
        ports: { _tag: "Exact", port: 8080 },
        entries: ["0.0.0.0:0/tcp 172.17.0.2:80", "[::]:0/tcp [fd00::2]:80"]
      }
    ])
    assert.deepStrictEqual(written("8080:80", { v4, v6: undefined }), [
      {
        ports: { _tag: "Exact", port: 8080 },
        entries: ["0.0.0.0:0/tcp 172.17.0.2:80", "[::]:0/tcp 172.17.0.2:80"]
      }
    ])
    assert.deepStrictEqual(written("8080:80", { v4: undefined, v6 }), [
      { ports: { _tag: "Exact", port: 8080 }, entries: ["[::]:0/tcp [fd00::2]:80"] }
    ])
    assert.deepStrictEqual(
      written("127.0.0.1:8080:80", { v4: undefined, v6 }),
      "127.0.0.1 is IPv4, which leads to an IPv4 address only"
    )
  })

  it("are one for a range to choose from, and one for each pair of ports", () => {
    assert.deepStrictEqual(written("[::1]:8000-9000:53/udp", { v4, v6 }), [
      { ports: { _tag: "Range", first: 8000, last: 9000 }, entries: ["[::1]:0/udp [fd00::2]:53"] }
    ])
    assert.deepStrictEqual(written("127.0.0.1:7000-7001:80-81", { v4, v6 }), [
      { ports: { _tag: "Exact", port: 7000 }, entries: ["127.0.0.1:0/tcp 172.17.0.2:80"] },
      { ports: { _tag: "Exact", port: 7001 }, entries: ["127.0.0.1:0/tcp 172.17.0.2:81"] }
    ])
  })
})

describe("the syntax", () => {
  const int = (minimum: number, maximum: number) =>
    Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum, maximum })))
  const address = Arbitrary.map(Arbitrary.array(int(0, 255)), (some) => {
    if (some.length === 0) return undefined
    const padded = [...some, ...Array<number>(16).fill(0)]
    return fromOctets(Uint8Array.from(padded.slice(0, some.length % 2 === 0 ? 4 : 16)))
  })
  const protocol = Arbitrary.schema(Schema.Literals(["tcp", "udp", "sctp"]))
  const range = (first: number, length: number) => ({ first, last: Math.min(65535, first + length) })
  const publish = Arbitrary.map(
    Arbitrary.all([protocol, address, int(1, 60000), int(1, 60000), int(0, 300), int(0, 3)]),
    ([protocol, host, hostPort, containerPort, length, kind]): Publish =>
      kind === 3
        ? {
            ...{ protocol, host: undefined, interfaceName: `eth${length}` },
            hostPorts: range(hostPort, length),
            containerPorts: range(containerPort, length)
          }
        : {
            ...{ protocol, host },
            hostPorts: kind === 0 ? undefined : range(hostPort, length),
            containerPorts: range(containerPort, kind === 1 ? 0 : length)
          }
  )
  const unpublish = Arbitrary.map(
    Arbitrary.all([protocol, address, int(1, 60000), int(0, 300)]),
    ([protocol, host, port, length]): Unpublish => ({ protocol, host, ports: range(port, length) })
  )

  it.prop("is read as it was written", [publish, unpublish], ([published, unpublished]) => {
    assert.deepStrictEqual(parsePublish(publishText(published)), Result.succeed(published))
    assert.deepStrictEqual(parseUnpublish(unpublishText(unpublished)), Result.succeed(unpublished))
  })

  const noise = Arbitrary.map(Arbitrary.array(int(0, 24)), (some) =>
    some.map((index) => "0123456789:::[]-/.tcpudw%"[index]).join("")
  )
  it.prop("has one text for each meaning, and a reason for refusing every other text", [noise], ([text]) => {
    const check = <A>(parse: (text: string) => Result.Result<A, string>, write: (value: A) => string) => {
      const parsed = parse(text)
      if (Result.isFailure(parsed)) assert.isAbove(parsed.failure.length, 0)
      else assert.strictEqual(write(Result.getOrThrow(parse(write(parsed.success)))), write(parsed.success))
    }
    check(parsePublish, publishText)
    check(parseUnpublish, unpublishText)
  })
})
