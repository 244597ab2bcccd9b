import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { Container } from "../../adapters/engine/Engine.ts"
import {
  decodeContainers,
  decodeEvent,
  decodeImage,
  decodeInfo,
  decodeNetworks
} from "../../adapters/engine/EngineMessages.ts"

const network = {
  Id: "0123456789abcdef",
  Name: "shop",
  Driver: "bridge",
  Internal: false,
  Options: { "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1" },
  IPAM: { Config: [{ Subnet: "172.18.0.0/16" }, { Subnet: "nonsense" }] }
}
const networks = Result.getOrThrow(decodeNetworks([network]))

const containers = (...listed: ReadonlyArray<object>): ReadonlyArray<Container> =>
  Result.getOrThrow(decodeContainers(listed.map((one) => ({ Id: "a".repeat(64), Names: ["/web"], ...one }))))(
    networks
  )
const containerOf = (more: object): Container => {
  const [only] = containers(more)
  if (only === undefined) throw new Error("one container was listed")
  return only
}

describe("a container in the Engine's list", () => {
  it("runs while it is running or paused, and ended once it is not about to be restarted", () => {
    for (const [State, running, ended] of [
      ["running", true, false],
      ["paused", true, false],
      ["created", false, false],
      ["restarting", false, false],
      ["exited", false, true],
      ["dead", false, true]
    ] as const) {
      const container = containerOf({ State })
      assert.deepStrictEqual([container.running, container.ended], [running, ended], State)
    }
  })

  it("has the name that is no alias of a link, or its short id", () => {
    assert.strictEqual(containerOf({ Names: ["/other/alias", "/web"] }).name, "web")
    assert.strictEqual(containerOf({ Names: null }).name, "a".repeat(12))
  })

  it("is not ready as its status says", () => {
    for (const [Status, unready] of [
      ["Up 3 seconds (health: starting)", "starting"],
      ["Up 1 hour (unhealthy)", "unhealthy"],
      ["Up 1 hour (healthy)", undefined],
      ["Up 1 hour", undefined]
    ] as const)
      assert.strictEqual(containerOf({ Status }).unready, unready, Status)
    assert.strictEqual(containerOf({ State: "paused", Status: "Up 1 hour (Paused)" }).unready, "paused")
  })

  it("has the addresses and gateways of the networks that are known, by id or else by name", () => {
    const endpoint = { IPAddress: "172.18.0.2", Gateway: "172.18.0.1", GlobalIPv6Address: "" }
    const of = (Networks: object) =>
      containerOf({ NetworkSettings: { Networks } }).attachments.map(
        ({ network: { name }, v4, v6, gateways }) => `${name} ${v4?.text} ${v6?.text} ${gateways}`
      )
    assert.deepStrictEqual(of({ renamed: { ...endpoint, NetworkID: network.Id } }), [
      "shop 172.18.0.2 undefined 1"
    ])
    assert.deepStrictEqual(of({ shop: { ...endpoint, IPv6Gateway: "fd00::1" } }), [
      "shop 172.18.0.2 undefined 3"
    ])
    assert.deepStrictEqual(of({ unknown: endpoint }), [])
    assert.deepStrictEqual(of({ shop: { IPAddress: "" } }), ["shop undefined undefined 0"])
  })

  it("comes after those that were created before it", () => {
    const listed = containers({ Id: "b", Created: 2 }, { Id: "a", Created: 2 }, { Id: "c", Created: 1 })
    assert.deepStrictEqual(
      listed.map(({ id }) => id),
      ["c", "a", "b"]
    )
  })

  it("may lack everything but its id and its names", () =>
    assert.deepStrictEqual(containerOf({}).attachments, []))

  it("is an error where the list is none", () => {
    for (const listed of [{}, [{}], [{ Id: 1, Names: [] }], "x", null])
      assert.isTrue(Result.isFailure(decodeContainers(listed)), JSON.stringify(listed))
  })
})

describe("a network of the Engine", () => {
  it("has its bridge's name, its host binding and the subnets that can be read", () => {
    const [one] = networks
    assert.deepStrictEqual(
      [one?.bridge, one?.hostBinding?.text, one?.subnets.length, one?.internal],
      ["br-0123456789ab", "127.0.0.1", 1, false]
    )
    const [named] = Result.getOrThrow(
      decodeNetworks([
        { ...network, Options: { "com.docker.network.bridge.name": "docker0" }, Internal: true }
      ])
    )
    assert.deepStrictEqual([named?.bridge, named?.hostBinding, named?.internal], ["docker0", undefined, true])
  })

  it("has no subnets if it is docker_gwbridge, whose containers the Engine does not report", () => {
    const [one] = Result.getOrThrow(decodeNetworks([{ ...network, Name: "docker_gwbridge" }]))
    assert.deepStrictEqual(one?.subnets, [])
  })
})

describe("an event of the Engine", () => {
  const event = (Type: string, Action: string, Actor: object = { ID: "c1", Attributes: {} }) =>
    Result.getOrThrow(decodeEvent({ Type, Action, Actor })).map((one) =>
      one._tag === "Changed" ? `${one.id} ${one.action}` : one._tag
    )

  it("names the container, also that of a network's event", () => {
    assert.deepStrictEqual(event("container", "start"), ["c1 start"])
    assert.deepStrictEqual(event("network", "connect", { ID: "n1", Attributes: { container: "c2" } }), [
      "c2 connect"
    ])
    assert.deepStrictEqual(event("network", "connect", { ID: "n1", Attributes: null }), [])
  })

  it("of a signal is a stop only by a signal that ends a container", () => {
    const kill = (signal: string) => event("container", "kill", { ID: "c1", Attributes: { signal } })
    for (const signal of ["2", "3", "9", "15", "28", "37"])
      assert.deepStrictEqual(kill(signal), ["c1 stop"], signal)
    for (const signal of ["1", "10", "12", ""]) assert.deepStrictEqual(kill(signal), [], signal)
  })
})

describe("the Engine's other answers", () => {
  it("have what they have, and nothing where a field is missing or null", () => {
    assert.deepStrictEqual(
      Result.getOrThrow(
        decodeInfo({ ID: "e", ServerVersion: "29.0", FirewallBackend: { Driver: "nftables" } })
      ),
      { id: "e", version: "29.0", firewall: "nftables" }
    )
    assert.deepStrictEqual(Result.getOrThrow(decodeInfo({ FirewallBackend: null })), {
      id: "",
      version: "",
      firewall: undefined
    })
    assert.deepStrictEqual(
      Result.getOrThrow(decodeImage({ Config: { Labels: { a: "1" } } })),
      new Map([["a", "1"]])
    )
    assert.deepStrictEqual(Result.getOrThrow(decodeImage({ Config: null })), new Map())
  })
})
