import { assert, describe, it } from "@effect/vitest"
import { batchesOf, difference, mapActions } from "../../adapters/engine/Difference.ts"
import { type ObservedGroup, signatureOf } from "../../adapters/engine/Observed.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { groupsAtOnce } from "../../src/protocol/Driver.ts"
import { container, desired } from "./containers.ts"

const publish = (text: string) => ({ "portmapper.publish": text })
const { groups } = desired(
  container("web"),
  publish("127.0.0.1:7000-7010:80,127.0.0.1::81,127.0.0.1:8080:82")
)
const [range, ephemeral, exact] = groups
if (range === undefined || ephemeral === undefined || exact === undefined) throw new Error("three groups")

/** A group mapped on a port, for a container with this address. */
const observed = (of: typeof exact, port: number, address = "172.17.0.2"): [string, ObservedGroup] => [
  of.key,
  {
    name: of.name,
    owner: of.owner,
    port,
    bindings: of.group.entries.map(({ protocol, host, backend }) => ({
      protocol,
      host,
      port,
      backend: { ...backend, address: addressUnsafe(address) }
    })),
    idle: false,
    signature: signatureOf(of.group)
  }
]

describe("the difference between desired and observed", () => {
  it("is empty where both are the same", () => {
    const same = new Map([observed(range, 7003), observed(ephemeral, 32_768), observed(exact, 8080)])
    assert.deepStrictEqual(difference(groups, same, new Map()), { release: [], map: [], after: [] })
  })

  it("maps exact ports first, ranges and ephemeral ports on the port they had before", () => {
    const { map } = difference(groups, new Map(), new Map([[ephemeral.key, 40_000]]))
    assert.deepStrictEqual(
      map.map(({ desired: { key }, tries }) => [key, tries]),
      [
        [ephemeral.key, [{ _tag: "Exact", port: 40_000 }, { _tag: "Ephemeral" }]],
        [exact.key, [{ _tag: "Exact", port: 8080 }]],
        [range.key, [{ _tag: "Range", first: 7000, last: 7010 }]]
      ]
    )
  })

  it("releases what is not desired, or leads to a former address of the container", () => {
    const before = new Map([
      observed(exact, 8080, "172.17.0.9"),
      observed(range, 7000),
      observed(ephemeral, 1)
    ])
    const moved: ObservedGroup = { ...(before.get(exact.key) as ObservedGroup), signature: undefined }
    const { release, map } = difference([exact, range], before.set(exact.key, moved), new Map())
    assert.deepStrictEqual(
      release.map(({ key, bindings }) => [key, bindings.map(({ port }) => port)]),
      [
        [exact.key, [8080]],
        [ephemeral.key, [1]]
      ]
    )
    assert.deepStrictEqual(
      map.map(({ desired: { key } }) => key),
      [exact.key]
    )
  })

  it("is applied in batches of one owner that fit into one call", () => {
    const many = desired(container("many"), publish(`1-${groupsAtOnce + 2}:1-${groupsAtOnce + 2}`)).groups
    const others = groups.map((each) => ({ ...each, owner: "cli" }))
    const batches = batchesOf(mapActions([...many, ...others], new Map(), new Map()))
    assert.deepStrictEqual(
      batches.map((batch) => [batch[0]?.desired.owner, batch.length]),
      [
        ["watch", groupsAtOnce],
        ["watch", 2],
        ["cli", 3]
      ]
    )
  })
})
