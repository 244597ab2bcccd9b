import { assert, describe, it } from "@effect/vitest"
import { observedFrom, signatureOf } from "../../adapters/engine/Observed.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { group } from "../support/groups.ts"
import { listedMapping } from "../support/mappings.ts"

const of = (container: string, publish = "8080:80") =>
  new Map([
    ["portmapper.container", container],
    ["portmapper.publish", publish]
  ])
const listed = (more: Partial<ListedMapping> = {}) =>
  listedMapping({ owner: "watch", labels: of("web/0123456789ab"), ...more })

describe("what is observed", () => {
  it("is one group for each container, publication and backend port, with all of its bindings", () => {
    const groups = [
      ...observedFrom(
        [
          listed(),
          listed({ frontendIp: "10.0.0.1" }),
          listed({ protocol: 17 }),
          listed({ backendPort: 81 }),
          listed({ labels: of("web/0123456789ab", "8081:80"), frontendPort: 8081 }),
          listed({ labels: of("web/ba9876543210") })
        ],
        new Map()
      ).values()
    ]
    assert.deepStrictEqual(
      groups.map(({ name, port, bindings }) => `${name} ${port} ${bindings.length}`),
      ["web 8080 3", "web 8080 1", "web 8081 1", "web 8080 1"]
    )
  })

  it("leaves out what no container asked for, or what can't be read", () => {
    for (const mapping of [
      listed({ labels: new Map() }),
      listed({ labels: new Map([["portmapper.container", "web/0123456789ab"]]) }),
      listed({ labels: of("web") }),
      listed({ backendIp: "" }),
      listed({ protocol: 1 })
    ])
      assert.strictEqual(observedFrom([mapping], new Map()).size, 0)
  })

  it("keeps the signature of a request while its bindings are the same, in any order", () => {
    const both = [listed(), listed({ frontendIp: "10.0.0.1" })]
    const known = new Map(
      [...observedFrom(both, new Map())].map(([key, one]) => [key, { ...one, signature: "s" }])
    )
    const signatures = (all: ReadonlyArray<ListedMapping>) =>
      [...observedFrom(all, known).values()].map(({ signature }) => signature)
    assert.deepStrictEqual(signatures(both.toReversed()), ["s"])
    assert.deepStrictEqual(signatures([listed()]), [undefined])
    assert.deepStrictEqual(signatures(both.map((one) => ({ ...one, frontendPort: 8081 }))), [undefined])
  })

  it("has the same signature for groups that are mapped alike", () => {
    const one = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"], { a: "1" })
    assert.strictEqual(
      signatureOf(one),
      signatureOf(group("8080", ["tcp 0.0.0.0 172.17.0.2:80"], { a: "1" }))
    )
    for (const other of [
      group("8081", ["tcp 0.0.0.0 172.17.0.2:80"], { a: "1" }),
      group("8080", ["tcp 0.0.0.0 172.17.0.3:80"], { a: "1" }),
      group("8080", ["tcp 0.0.0.0 172.17.0.2:80"], { a: "2" })
    ])
      assert.notStrictEqual(signatureOf(one), signatureOf(other))
  })
})
