import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import * as Messages from "../../adapters/etcd/EtcdMessages.ts"

const base64 = (text: string) => Buffer.from(text).toString("base64")
const ok = Result.getOrThrow

describe("a request to etcd", () => {
  it("ends a prefix after its last key, and begins a page after the last one read", () => {
    const range = { key: base64("/p/"), range_end: base64("/p0") }
    assert.deepStrictEqual(Messages.pageBody("/p/", { limit: 5 }), { ...range, limit: "5" })
    assert.deepStrictEqual(Messages.pageBody("/p/", { limit: 5, after: "/p/a", revision: 9 }), {
      ...{ key: base64("/p/a\0"), range_end: range.range_end },
      ...{ limit: "5", revision: "9" }
    })
  })

  it("keeps a value that is not given, and grants a lease by whole seconds", () => {
    const put = { _tag: "Put", key: "k" } as const
    const success = [put, { ...put, value: "", lease: "7" }]
    assert.deepStrictEqual(Messages.transactionBody({ compare: [], success }), {
      compare: [],
      success: [
        { request_put: { key: base64("k"), ignore_value: true, lease: "0" } },
        { request_put: { key: base64("k"), value: "", lease: "7" } }
      ],
      failure: []
    })
    assert.deepStrictEqual(Messages.grantBody(Duration.millis(1001)), { TTL: "2" })
  })
})

describe("an answer of etcd", () => {
  const kv = { key: base64("k"), mod_revision: "12" }
  const entry = { key: "k", value: "", createRevision: 0, revision: 12, lease: undefined }

  it("leaves out what is zero, empty or false", () => {
    assert.deepStrictEqual(ok(Messages.decodeTransaction({ header: { revision: "3" }, responses: [{}] })), {
      ...{ succeeded: false, revision: 3, reads: [] }
    })
    assert.deepStrictEqual(ok(Messages.decodePage(7)({ header: { revision: "12" }, kvs: [kv] })), {
      ...{ revision: 7, entries: [entry], more: false }
    })
    assert.isUndefined(ok(Messages.decodeLeaseState({ TTL: "-1" })))
    assert.isFalse(ok(Messages.decodeKeptAlive({ result: { ID: "7" } })))
    assert.isTrue(ok(Messages.decodeKeptAlive({ result: { ID: "7", TTL: "1" } })))
    assert.deepStrictEqual(ok(Messages.decodeStatus({ leader: "0" })), {
      version: "",
      bytes: 0,
      hasLeader: false
    })
  })

  it("of a watch begins or ends it, or has progress or changes, and says which piece is the last", () => {
    const read = (result: object) => ok(Messages.decodeWatch({ result }))
    assert.deepStrictEqual(read({ created: true }), { _tag: "Begun" })
    assert.deepStrictEqual(read({ header: { revision: "9" } }), { _tag: "Progress", revision: 9 })
    const events = [{ kv }, { type: "DELETE", kv }]
    const changes = [
      { _tag: "Put", entry },
      { _tag: "Delete", key: "k", revision: 12 }
    ] as const
    assert.deepStrictEqual(read({ events }), { _tag: "Changes", changes, isWhole: true })
    assert.deepInclude(read({ events, fragment: true }), { isWhole: false })
    const why = "no reason given"
    assert.deepStrictEqual(read({ canceled: true }), { _tag: "Cancelled", compacted: false, why })
    assert.deepInclude(read({ canceled: true, compact_revision: "5" }), { compacted: true })
    assert.isTrue(Result.isFailure(Messages.decodeWatch({ events })))
  })

  it("is a failure of its own, or in a stream, of any version", () => {
    const failed = { code: 5, message: "m" }
    for (const value of [failed, { error: { grpc_code: 5, message: "m" } }, { error: failed }])
      assert.deepStrictEqual(Messages.decodeFailure(value), failed)
    assert.isUndefined(Messages.decodeFailure({ result: {} }))
  })
})
