import { assert, describe, it } from "@effect/vitest"
import {
  cellState,
  claimText,
  clusterChange,
  clusterKeys,
  clusterState,
  hostText
} from "../../src/cluster/ClusterKeys.ts"
import type { Entry } from "../../src/cluster/Etcd.ts"

const keys = clusterKeys("default")
const entry = (key: string, value: string, revision: number, lease?: string): Entry => ({
  ...{ key, value, revision, lease },
  createRevision: revision - 1
})

const record = { identity: "1", address: "192.0.2.1", leases: ["7", "8"] }
const host = entry(keys.host("a"), hostText(record), 4, "7")
const cell = entry(keys.cell("0125"), "", 6)
const claim = entry(keys.claim("0125", "tcp.8000.a"), claimText("a", "for web, of shop"), 6, "7")
const held = {
  ...{ cell: "0125", name: "tcp.8000.a", host: "a", value: "for web, of shop" },
  ...{ lease: "7", revision: 5 }
}

describe("a key", () => {
  for (const [key, parsed] of [
    ["hosts/a/", { _tag: "Host", host: "a" }],
    ["cells/0125/", { _tag: "Cell", cell: "0125" }],
    ["cells/0125/tcp.8000.a", { _tag: "Claim", cell: "0125", name: "tcp.8000.a" }],
    ["hosts/a", { _tag: "Unknown" }],
    ["cells/0125", { _tag: "Unknown" }],
    ["locks/a/", { _tag: "Unknown" }],
    ["", { _tag: "Unknown" }]
  ] as const)
    it(`${JSON.stringify(key)} is of a ${parsed._tag}`, () =>
      assert.deepStrictEqual(keys.parse(`/portmapper/default/${key}`), parsed))

  it("of another cluster is unknown, also where its name begins alike", () =>
    assert.deepStrictEqual(keys.parse(clusterKeys("default2").host("a")), { _tag: "Unknown" }))
})

describe("the entries of a cluster", () => {
  it("are its hosts, and its cells with their claims, each with the revision that made it", () =>
    assert.deepStrictEqual(clusterState(keys, 9, [cell, claim, host]), {
      hosts: [{ host: "a", address: "192.0.2.1", isAbsent: false, revision: 4 }],
      cells: [{ cell: "0125", revision: 6, readAt: 9, claims: [held] }]
    }))

  it("may be a host that left, and one that no portmapper wrote", () => {
    const hosts = (value: string) => clusterState(keys, 9, [entry(keys.host("a"), value, 4)]).hosts
    assert.deepInclude(hosts(hostText({ ...record, absent: true }))[0], { isAbsent: true })
    assert.deepInclude(hosts("no JSON")[0], { host: "a", address: undefined, isAbsent: false })
  })

  it("may be none, of a cell without a claim so far", () =>
    assert.deepStrictEqual(cellState(keys, "0125", 9, []), {
      ...{ cell: "0125", revision: 0, readAt: 9, claims: [] }
    }))

  it("may be a claim without a value, or on no lease", () =>
    assert.deepInclude(cellState(keys, "0125", 9, [entry(claim.key, "a", 6)]).claims[0], {
      ...{ host: "a", value: "", lease: "" }
    }))
})

describe("a change", () => {
  const put = (of: Entry) => clusterChange(keys, { _tag: "Put", entry: of })
  const deleted = (key: string) => clusterChange(keys, { _tag: "Delete", key, revision: 9 })

  it("comes or goes with its key, at the revision of the change", () => {
    assert.deepStrictEqual(put(claim), { _tag: "Claimed", claim: held, revision: 6 })
    assert.deepStrictEqual(deleted(claim.key), {
      ...{ _tag: "Released", claim: { cell: "0125", name: "tcp.8000.a" }, revision: 9 }
    })
    assert.deepStrictEqual(put(cell), { _tag: "CellMoved", cell: "0125", revision: 6 })
    assert.deepInclude(put(host), { _tag: "HostCame", revision: 4 })
    assert.deepStrictEqual(deleted(host.key), { _tag: "HostLeft", host: "a", revision: 9 })
    assert.strictEqual(put(entry("/portmapper/default/locks/a", "", 4)), undefined)
  })
})
