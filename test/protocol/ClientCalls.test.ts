import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { listPortsResponse, mapPortsResponse } from "../../src/protocol/Answers.ts"
import * as Calls from "../../src/protocol/ClientCalls.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { decodeValue } from "../../src/protocol/GoSchema.ts"
import {
  ListPortsResponse,
  MapGroupsResponse,
  MapPortsRequest,
  MapPortsResponse,
  UnmapPortsRequest
} from "../../src/protocol/Messages.ts"
import type { PortBinding } from "../../src/protocol/PortBinding.ts"
import { groupOf, releaseOf } from "../../src/protocol/Requests.ts"
import { bindingText, group } from "../support/groups.ts"
import { listedMapping } from "../support/mappings.ts"

const web = group("8080", ["tcp - 172.17.0.2:80", "udp :: [fd00::2]:53"], { a: "b" })
const value = <A>(result: Result.Result<A, unknown>): A => Result.getOrThrow(result)
const rule = <A, E>(result: Result.Result<A, E>): E | undefined => Result.getOrUndefined(Result.flip(result))

describe("a request of a client", () => {
  for (const ports of ["8080", "8000-8010", "0"])
    it(`for port ${ports} is the group that the plugin reads`, () => {
      const asked = { ...web, ports: group(ports, []).ports }
      const decoded = value(decodeValue(MapPortsRequest)(Calls.mapPortsRequest(asked)))
      assert.deepStrictEqual(value(groupOf(decoded)), asked)
    })

  it("to unmap is the release that the plugin reads, with any backend where it names none", () => {
    const bindings = web.entries.map((entry, index) => ({
      ...{ protocol: entry.protocol, host: entry.host, port: 8080 },
      backend: index === 0 ? entry.backend : { address: undefined, port: 0 }
    }))
    const release = { bindings, labels: web.labels }
    const decoded = value(decodeValue(UnmapPortsRequest)(Calls.unmapPortsRequest(release)))
    assert.deepStrictEqual(value(releaseOf(decoded)), release)
  })

  it("to follow an interface names the addresses that it leads to", () => {
    const to = (v4: string | undefined, v6: string | undefined) => {
      const at = (text: string | undefined) => (text === undefined ? undefined : addressUnsafe(text))
      return Calls.followInterfaceRequest({ to: { v4: at(v4), v6: at(v6) }, publish: [], labels: new Map() })
        .To
    }
    assert.deepStrictEqual(to("172.17.0.2", "fd00::2"), ["172.17.0.2", "fd00::2"])
    assert.deepStrictEqual(to(undefined, "fd00::2"), ["fd00::2"])
  })
})

describe("what an answer grants", () => {
  const granted = (answer: unknown) =>
    Result.map(
      Calls.bindingsGranted(web, value(decodeValue(MapPortsResponse)(answer))),
      (bindings: ReadonlyArray<PortBinding>) => bindings.map(bindingText)
    )
  const wire = mapPortsResponse(
    web.entries.map((entry) => ({
      ...{ entry, port: 8080, discarded: undefined, allowForwarding: true, nat: undefined }
    }))
  )
  const [first, second] = wire.PortBindings ?? []

  it("is what the request asked for, where it says nothing else", () => {
    assert.deepStrictEqual(value(granted(wire)), [
      "0.0.0.0:8080/tcp -> 172.17.0.2:80, forward",
      "[::]:8080/udp -> [fd00::2]:53, forward"
    ])
    assert.deepStrictEqual(
      value(granted({ PortBindings: [{ ...first, BackendIP: "" }, second] })),
      value(granted(wire))
    )
  })

  it("is another address or port than was asked for, where it says so", () => {
    const other = { ...first, FrontendIP: "10.0.0.1", FrontendPort: 9090, BackendIP: "172.17.0.9" }
    assert.strictEqual(
      value(granted({ PortBindings: [other, second] }))[0],
      "10.0.0.1:9090/tcp -> 172.17.0.9:80, forward"
    )
  })

  it("is discarded without a reason, where it gives none", () => {
    const discarded = { ...first, DiscardReq: true, Error: null }
    assert.strictEqual(
      value(granted({ PortBindings: [discarded, second] }))[0],
      "0.0.0.0:8080/tcp -> 172.17.0.2:80, forward, discarded: no reason was given"
    )
  })

  it("is nothing where it does not fit the request", () => {
    assert.strictEqual(rule(granted({ PortBindings: null })), "the answer has 0 bindings for a group of 2")
    assert.strictEqual(rule(granted({ PortBindings: [first] })), "the answer has 1 bindings for a group of 2")
    assert.strictEqual(
      rule(granted({ PortBindings: [first, { ...second, Proto: 1 }] })),
      "the protocol 1 is none with ports"
    )
    const groups = (answer: unknown) =>
      rule(Calls.groupsGranted([web, web], value(decodeValue(MapGroupsResponse)(answer))))
    assert.strictEqual(groups({ Groups: [wire] }), "the answer has 1 groups for a request of 2")
    assert.strictEqual(
      groups({ Groups: [wire, { PortBindings: [] }] }),
      "the answer has 0 bindings for a group of 2"
    )
  })

  it("to a container or interface that is followed has the backend in it", () => {
    const followed = (answer: unknown) =>
      Result.map(Calls.bindingsFollowed(value(decodeValue(MapPortsResponse)(answer))), (bindings) =>
        bindings.map(bindingText)
      )
    assert.deepStrictEqual(value(followed({ PortBindings: [second] })), [
      "[::]:8080/udp -> [fd00::2]:53, forward"
    ])
    assert.deepStrictEqual(value(followed({ PortBindings: null })), [])
    assert.strictEqual(
      rule(followed({ PortBindings: [{ ...second, BackendIP: "" }] })),
      "a binding of the answer has no backend address"
    )
  })
})

describe("a listed mapping", () => {
  const listed = (mappings: unknown) =>
    Calls.mappingsListed(value(decodeValue(ListPortsResponse)({ Mappings: mappings })))
  const [wire] = listPortsResponse([listedMapping()]).Mappings ?? []

  it("is read as it was listed", () => {
    const all: ReadonlyArray<ListedMapping> = [
      listedMapping({
        ...{ labels: new Map([["a", "b"]]), connections: 0, bytesIn: 1, bytesOut: 2, service: "web" },
        ...{
          refused: { allow: 1, connections: 2, rate: 3, "rate-per-source": 4 },
          slots: { has: 32, of: 64 }
        },
        ...{ container: "web/0123456789ab", reason: "late", at: { host: "b", address: "192.0.2.1" } }
      }),
      listedMapping({
        refused: { rate: 0 },
        at: { host: "b", address: undefined },
        frontendIp: "",
        backendIp: ""
      })
    ]
    const read = value(listed(listPortsResponse(all).Mappings))
    assert.deepStrictEqual(JSON.parse(JSON.stringify(read)), JSON.parse(JSON.stringify(all)))
    assert.deepStrictEqual(read[0]?.labels, all[0]?.labels)
  })

  it("of an unknown state, protocol or time is refused with it", () => {
    for (const [more, expected] of [
      [{ State: "lost" }, 'the state "lost" is unknown'],
      [{ Proto: 1 }, "the protocol 1 is none with ports"],
      [{ Since: "yesterday" }, '"yesterday" is no time']
    ] as const)
      assert.strictEqual(rule(listed([{ ...wire, ...more }])), expected)
  })
})
