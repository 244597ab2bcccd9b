import { assert, describe, it } from "@effect/vitest"
import {
  failure,
  isLeaseUnknown,
  isRevisionUnknown,
  isTokenUnknown,
  refusal,
  withoutAnswer
} from "../../adapters/etcd/EtcdFailures.ts"
import { HttpCode, HttpError } from "../../adapters/node/HttpClient.ts"

const asked = { endpoint: "http://a:1", writes: true }

describe("a refusal of etcd", () => {
  it.each([
    [
      7,
      "etcdserver: permission denied",
      "Denied: permission denied: the user's role lacks the cluster's prefix"
    ],
    [3, "etcdserver: user name is empty", "Denied: it wants a user, and none is given"],
    [
      3,
      "etcdserver: authentication failed, invalid user ID or password",
      "Denied: authentication failed, invalid user ID or password"
    ],
    [3, "etcdserver: too many operations in txn request", "Refused: too many operations in txn request"],
    [9, "etcdserver: authentication is not enabled", "Denied: authentication is not enabled"],
    [9, "etcdserver: a precondition", "Refused: a precondition"],
    [8, "etcdserver: mvcc: database space exceeded", "Full: mvcc: database space exceeded"],
    [8, "etcdserver: too many requests", "Unreachable: too many requests"],
    [14, "etcdserver: no leader", "Unreachable: no leader"],
    [12, "not implemented", "Refused: not implemented"]
  ] as const)("of code %d, %s", (code, words, expected) => {
    const error = failure(asked, code, words)
    assert.strictEqual(error._tag === "ClusterError" && `${error.reason}: ${error.detail}`, expected)
    // Where no member has carried it out for sure, it may have been.
    assert.strictEqual("mayBeDone" in error && error.mayBeDone, expected.startsWith("Unreachable"))
  })

  it.each([
    [5, "etcdserver: requested lease not found", { lease: true, revision: false, token: false }],
    [5, "Not Found", { lease: false, revision: false, token: false }],
    [
      11,
      "etcdserver: mvcc: required revision has been compacted",
      { lease: false, revision: true, token: false }
    ],
    [16, "etcdserver: invalid auth token", { lease: false, revision: false, token: true }],
    [3, "etcdserver: revision of auth store is old", { lease: false, revision: false, token: true }]
  ] as const)("of code %d, %s, is its caller's to judge", (code, words, expected) => {
    const answer = failure(asked, code, words)
    if (answer._tag !== "EtcdAnswer") return assert.fail(answer.message)
    assert.deepStrictEqual(
      { lease: isLeaseUnknown(answer), revision: isRevisionUnknown(answer), token: isTokenUnknown(answer) },
      expected
    )
  })

  it("is none of etcd's where the body is none of its messages", () => {
    const error = refusal(asked, { status: 404, body: "<html>" })
    assert.include(error, {
      reason: "Refused",
      detail: "status 404: what is there is no etcd v3 with a JSON gateway",
      mayBeDone: false
    })
    assert.strictEqual(refusal(asked, { status: 400, body: '{"code":5,"message":"x"}' })._tag, "EtcdAnswer")
  })
})

it.each([
  [HttpCode.answerTimeout, true, "no answer: the system's text", true],
  ["ECONNREFUSED", false, "no process is listening there", false],
  ["ECONNRESET", true, "the connection broke", true],
  ["ENETUNREACH", false, "the system's text", false],
  [
    "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
    false,
    "its certificate is of no authority known here (the system's text); give one by --cluster-ca",
    false
  ]
] as const)(
  "a write without an answer, by %s, may be done once it was connected: %s",
  (code, connected, detail, mayBeDone) => {
    const error = withoutAnswer(asked, new HttpError({ code, connected, message: "the system's text" }))
    assert.include(error, { reason: "Unreachable", detail, mayBeDone })
    assert.isFalse(
      withoutAnswer({ ...asked, writes: false }, new HttpError({ code, connected, message: "" })).mayBeDone
    )
  }
)
