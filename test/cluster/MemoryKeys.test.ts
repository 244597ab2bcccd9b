import { assert, describe, it } from "@effect/vitest"
import type { Operation } from "../../src/cluster/Etcd.ts"
import { MemoryKeys } from "../../src/cluster/MemoryKeys.ts"

const put = (key: string, value?: string, lease?: string): Operation => ({ _tag: "Put", key, value, lease })
const texts = (entries: ReturnType<MemoryKeys["read"]>) =>
  entries.map(({ key, value, createRevision, revision }) => `${key}=${value} ${createRevision} ${revision}`)

/** `/a` is written at revisions 2 and 3, `/b` at 3, and `/b` is deleted at 4. */
const written = () => {
  const keys = new MemoryKeys()
  const write = (...success: ReadonlyArray<Operation>) => keys.transact({ compare: [], success }, () => true)
  write(put("/a", "1"))
  write(put("/b", "2"), put("/a", "3"))
  write({ _tag: "Delete", key: "/b" })
  return { keys, write }
}

/** What a transaction does is in the conformance suite; see `MemoryEtcd.test.ts`. */
describe("keys in memory", () => {
  it("can be read as they were at any revision, sorted", () => {
    const { keys } = written()
    assert.deepStrictEqual(texts(keys.read("/", 2)), ["/a=1 2 2"])
    assert.deepStrictEqual(texts(keys.read("/", 3)), ["/a=3 2 3", "/b=2 3 3"])
    assert.deepStrictEqual(texts(keys.read("/")), ["/a=3 2 3"])
    assert.deepStrictEqual(texts(keys.page("/", 1, "/a", 3).entries), ["/b=2 3 3"])
    assert.isTrue(keys.page("/", 1, undefined, 3).more)
  })

  it("forget what was before a compaction, and the keys that were deleted by then", () => {
    const { keys, write } = written()
    keys.compact()
    write(put("/b", "6"))
    assert.deepStrictEqual([keys.compacted, texts(keys.read("/", 3))], [4, ["/a=3 2 3"]])
    assert.deepStrictEqual(
      keys.changes("/", 4).map(({ revision, changes }) => [revision, changes.length]),
      [[5, 1]]
    )
  })

  it("bring their changes by revision, each whole", () =>
    assert.deepStrictEqual(
      written()
        .keys.changes("/", 2)
        .map(({ revision, changes }) => [revision, changes.map(({ _tag }) => _tag)]),
      [
        [3, ["Put", "Put"]],
        [4, ["Delete"]]
      ]
    ))

  it("of a copy are not changed by the original", () => {
    const { keys, write } = written()
    const copy = new MemoryKeys(keys)
    write(put("/a", "9"))
    assert.deepStrictEqual([texts(copy.read("/")), copy.revision], [["/a=3 2 3"], 4])
  })
})
