import { assert, describe, it } from "@effect/vitest"
import {
  addressesIn,
  addressesText,
  groupKey,
  keysAtInterface,
  leadsToAddresses,
  portKeyOf,
  publishOfKey,
  renamed,
  type Subscription,
  shortIdOfKey,
  subscribedContainer,
  withoutPorts
} from "../../adapters/engine/Subscription.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { endpoint } from "../support/groups.ts"
import { container } from "./containers.ts"

const web = container("web")

const subscription = (publish: string, more: Partial<Subscription> = {}): Subscription => ({
  ...{ id: web.id, name: "web", publish, labels: {}, owner: "cli", without: [] },
  ...more
})

describe("the addresses that ports lead to instead of a container", () => {
  const [v4, v6] = [addressUnsafe("172.17.0.2"), addressUnsafe("fd00::2")]

  it("are read from the id that was made of them, and from no container's id", () => {
    for (const to of [
      { v4, v6 },
      { v4, v6: undefined },
      { v4: undefined, v6 }
    ])
      assert.deepStrictEqual(addressesIn(addressesText(to)), to)
    assert.isUndefined(addressesIn(web.id))
  })
})

describe("the key of a group", () => {
  const ofContainer = groupKey("cli", web.id, "8080:80", 80)
  const atInterface = groupKey("cli", "172.17.0.2,fd00::2", "eth0:8080:80", 80, "192.0.2.1")

  it("has the container's short id, or all of the addresses, and can be read again", () => {
    assert.strictEqual(ofContainer, `cli ${web.id.slice(0, 12)} 8080:80 80`)
    assert.strictEqual(atInterface, "cli 172.17.0.2,fd00::2 eth0:8080:80 80 192.0.2.1")
    assert.deepStrictEqual(
      [shortIdOfKey(ofContainer), publishOfKey(ofContainer)],
      [web.id.slice(0, 12), "8080:80"]
    )
  })

  it("says whether it leads to addresses, and is the same port at all addresses of an interface", () => {
    assert.deepStrictEqual([ofContainer, atInterface].map(leadsToAddresses), [false, true])
    assert.deepStrictEqual([ofContainer, atInterface].map(portKeyOf), [
      ofContainer,
      "cli 172.17.0.2,fd00::2 eth0:8080:80 80"
    ])
  })
})

describe("the container of a subscription", () => {
  const successor = container("web", { id: "f".repeat(64) })

  it("is the one of its id, under any name; once that is gone, another of its name", () => {
    const site = { ...web, name: "site" }
    assert.strictEqual(subscribedContainer(subscription("80"), [successor, site]), site)
    assert.strictEqual(subscribedContainer(subscription("80"), [successor]), successor)
    assert.isUndefined(subscribedContainer(subscription("80"), [container("db")]))
  })

  it("gives it its new name", () => {
    const one = subscription("80")
    assert.strictEqual(renamed(one, [{ ...web, name: "site" }]).name, "site")
    assert.strictEqual(renamed(one, [web]), one)
    assert.strictEqual(renamed(one, []), one)
  })
})

describe("a subscription of which ports were unmapped", () => {
  it("goes on with the others, and ends with the last", () => {
    const range = subscription("8080-8081:80-81")
    const [first, second] = [80, 81].map((port) => groupKey("cli", web.id, range.publish, port))
    assert.deepStrictEqual(withoutPorts(range, new Set(["cli other 8080:80 80"])), range)
    const left = withoutPorts(range, new Set([first ?? ""]))
    assert.deepStrictEqual(left, { ...range, without: [80] })
    assert.isUndefined(withoutPorts(left ?? range, new Set([second ?? ""])))
  })
})

describe("what is unmapped at an interface", () => {
  const range = subscription("eth0:8080-8081:80-81", { id: "172.17.0.2,fd00::2" })
  const released = (port: number, backend: string, protocol: "tcp" | "udp" = "tcp") => ({
    ...{ protocol, host: addressUnsafe("0.0.0.0"), port },
    backend: backend === "any" ? { address: undefined, port: 0 } : endpoint(backend)
  })
  const containerPorts = (
    release: ReturnType<typeof released>,
    name: string | undefined = "eth0",
    of = range
  ) => keysAtInterface(of, [release], name).map((key) => key.split(" ").at(-1))

  it("is the port that the range gives the host's, of this interface and protocol", () => {
    assert.deepStrictEqual(containerPorts(released(8080, "any")), ["80"])
    assert.deepStrictEqual(containerPorts(released(8081, "any")), ["81"])
    for (const port of [8079, 8082]) assert.deepStrictEqual(containerPorts(released(port, "any")), [])
    assert.deepStrictEqual(containerPorts(released(8080, "any", "udp")), [])
    assert.deepStrictEqual(containerPorts(released(8080, "any"), "wg0"), [])
    assert.deepStrictEqual(keysAtInterface(range, [released(8080, "any")], undefined), [])
    assert.deepStrictEqual(containerPorts(released(8080, "any"), "eth0", subscription("8080:80")), [])
  })

  it("is none that leads to another backend, where it leads to addresses", () => {
    assert.deepStrictEqual(containerPorts(released(8081, "172.17.0.2:81")), ["81"])
    assert.deepStrictEqual(containerPorts(released(8081, "[fd00::2]:81")), ["81"])
    for (const backend of ["172.17.0.3:81", "172.17.0.2:80", "[fd00::3]:81"])
      assert.deepStrictEqual(containerPorts(released(8081, backend)), [], backend)
  })
})
