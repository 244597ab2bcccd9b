import { assert, describe, it } from "@effect/vitest"
import { nextStatus, type Status, type StatusEvent, transitions } from "../../src/mapper/model/Mapping.ts"

const statuses: ReadonlyArray<Status> = [
  ...[1, 2].map((pending): Status => ({ _tag: "Provisional", pending })),
  ...[0, 1, 2].flatMap(
    (pending): ReadonlyArray<Status> => [
      { _tag: "Unconfirmed", pending },
      { _tag: "Answered", pending }
    ]
  ),
  { _tag: "Conflicted", was: "Unconfirmed" },
  { _tag: "Conflicted", was: "Answered" },
  { _tag: "Gone" }
]
const pendingOf = (status: Status) => ("pending" in status ? status.pending : 0)
const eventsOf = (status: Status) => Object.keys(transitions[status._tag]) as ReadonlyArray<StatusEvent>

describe("the status of an entry", () => {
  it("counts the pending answers", () => {
    const change: Partial<Record<StatusEvent, number>> = { asked: 1, delivered: -1, lost: -1 }
    for (const status of statuses)
      for (const event of eventsOf(status)) {
        const by = change[event]
        if (by === undefined || pendingOf(status) + by < 0 || status._tag === "Conflicted") continue
        assert.strictEqual(pendingOf(nextStatus(status, event)), pendingOf(status) + by)
      }
  })

  it("is answered from the first answer that arrives, and stays so when others are lost", () => {
    for (const status of statuses) {
      if (pendingOf(status) === 0) continue
      const answered = nextStatus(status, "delivered")
      assert.strictEqual(answered._tag, "Answered")
      assert.strictEqual(nextStatus(nextStatus(answered, "asked"), "lost")._tag, "Answered")
    }
  })

  it("is removed only with the last lost answer of those it was created for, or by an unmapping", () => {
    for (const status of statuses)
      for (const event of eventsOf(status)) {
        const gone = nextStatus(status, event)._tag === "Gone"
        const last = event === "lost" && status._tag === "Provisional" && status.pending === 1
        assert.strictEqual(gone, event === "removed" || last, `${status._tag} ${event}`)
      }
  })

  it("is the earlier one when a conflict is resolved", () => {
    for (const _tag of ["Answered", "Unconfirmed"] as const) {
      const before: Status = { _tag, pending: 0 }
      assert.deepStrictEqual(nextStatus(nextStatus(before, "conflict"), "reactivated"), before)
    }
  })

  it("ignores an event that is not in its row", () => {
    const gone: Status = { _tag: "Gone" }
    for (const event of ["asked", "delivered", "lost", "removed", "conflict"] as const)
      assert.strictEqual(nextStatus(gone, event), gone)
  })
})
