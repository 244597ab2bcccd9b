import { assert, describe, it } from "@effect/vitest"
import type { ClusterChange, ClusterEvent, HeldClaim } from "../../src/cluster/ClusterState.ts"
import { ClusterError } from "../../src/cluster/Etcd.ts"
import { Replica } from "../../src/cluster/Replica.ts"

const claim = (name: string, revision: number): HeldClaim => ({
  ...{ cell: "0125", name, host: "a", value: "", lease: "1", revision }
})
const host = { host: "a", address: undefined, isAbsent: false, revision: 1 }

const snapshot = (revision: number, ...claims: ReadonlyArray<HeldClaim>): ClusterEvent => ({
  ...{ _tag: "Snapshot", revision, hosts: [host] },
  cells: [{ cell: "0125", revision, readAt: 0, claims }]
})
const changed = (revision: number, ...changes: ReadonlyArray<ClusterChange>): ClusterEvent => ({
  ...{ _tag: "Changed", revision, changes }
})
const claimed = (name: string, revision: number): ClusterChange => ({
  ...{ _tag: "Claimed", claim: claim(name, revision), revision }
})
const released = (name: string, revision: number): ClusterChange => ({
  ...{ _tag: "Released", claim: { cell: "0125", name }, revision }
})

const replicaOf = (...events: ReadonlyArray<ClusterEvent>) => {
  const replica = new Replica()
  for (const event of events) replica.apply(event)
  return replica
}
const names = (replica: Replica) => [...replica.claims()].map(({ name, revision }) => `${name} ${revision}`)

describe("a replica", () => {
  it("knows nothing at first", () => {
    const replica = replicaOf()
    assert.deepStrictEqual(replica.cell("0125"), { cell: "0125", revision: 0, readAt: 0, claims: [] })
    assert.isTrue(replica.isEmpty("0125"))
  })

  it("follows a snapshot by what changed after it", () => {
    const moved = { _tag: "CellMoved", cell: "0125", revision: 4 } as const
    const replica = replicaOf(
      snapshot(3, claim("8000", 2)),
      changed(4, moved, claimed("8001", 4)),
      changed(5, released("8000", 5))
    )
    assert.deepStrictEqual(replica.cell("0125"), {
      ...{ cell: "0125", revision: 4, readAt: 5, claims: [claim("8001", 4)] }
    })
    assert.strictEqual(replica.revision, 5)
    replica.apply(changed(6, released("8001", 6)))
    assert.isTrue(replica.isEmpty("0125"))
  })

  it("forgets everything for a snapshot, also for an older one: etcd may be restored from a backup", () =>
    assert.deepStrictEqual(
      names(replicaOf(snapshot(9, claim("8000", 2), claim("8001", 8)), snapshot(3, claim("8000", 2)))),
      ["8000 2"]
    ))

  it("does not go back where a request has read a cell before the watch brings its changes", () => {
    const replica = replicaOf(snapshot(3))
    replica.put({ cell: "0125", revision: 6, readAt: 6, claims: [claim("8001", 6)] })
    replica.apply(changed(4, claimed("8000", 4)))
    replica.apply(changed(6, released("8001", 6)))
    assert.deepStrictEqual(names(replica), ["8001 6"])
    replica.apply(changed(7, released("8001", 7)))
    assert.deepStrictEqual(names(replica), [])
  })

  it("takes a cell that was read at the revision that it has, and no older one", () => {
    const replica = replicaOf(snapshot(5, claim("8000", 2)))
    replica.put({ cell: "0125", revision: 2, readAt: 4, claims: [] })
    assert.deepStrictEqual(names(replica), ["8000 2"])
    replica.put({ cell: "0125", revision: 2, readAt: 5, claims: [] })
    assert.deepStrictEqual(names(replica), [])
  })

  it("knows the hosts that came and have not left", () => {
    const came = { ...host, host: "b", isAbsent: true }
    const replica = replicaOf(snapshot(3), changed(4, { _tag: "HostCame", host: came, revision: 4 }))
    assert.deepStrictEqual(replica.hosts(), [host, came])
    replica.apply(changed(5, { _tag: "HostLeft", host: "a", revision: 5 }))
    assert.deepStrictEqual(replica.hosts(), [came])
  })

  it("stays as it is while the watch is interrupted", () => {
    const detail = {
      reason: "Unreachable",
      endpoint: undefined,
      detail: "no answer",
      mayBeDone: false
    } as const
    const replica = replicaOf(snapshot(3, claim("8000", 2)), {
      ...{ _tag: "Interrupted", error: new ClusterError(detail) }
    })
    assert.deepStrictEqual([names(replica), replica.revision], [["8000 2"], 3])
  })
})
