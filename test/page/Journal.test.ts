import { assert, describe, it } from "@effect/vitest"
import { Journal, journalLength, type Noted } from "../../src/page/Journal.ts"

const noted = (text: string, more: Partial<Noted> = {}): Noted => ({
  kind: "mapped",
  text,
  key: null,
  owner: "engine",
  ...more
})

const texts = (journal: Journal, after = 0) => journal.after(after).map(({ id, text }) => `${id} ${text}`)

describe("the journal of the page", () => {
  it("keeps the last 200 events, numbered, and returns those after one", () => {
    const journal = new Journal(() => 5)
    assert.deepStrictEqual([texts(journal), journal.latest], [[], 0])
    for (let number = 1; number <= journalLength + 3; number++) journal.note(noted(`event ${number}`))
    assert.strictEqual(journal.after(0).length, journalLength)
    assert.strictEqual(journal.latest, journalLength + 3)
    assert.deepStrictEqual(texts(journal, journalLength + 1), ["202 event 202", "203 event 203"])
    assert.deepStrictEqual(journal.after(journalLength + 2), [{ ...noted("event 203"), id: 203, at: 5 }])
  })

  it("notes a refusal once a minute, however often it is repeated, and another owner's besides", () => {
    let now = 0
    const journal = new Journal(() => now)
    const refused = { kind: "refused" } as const
    journal.note(noted("no", refused))
    now = 59_999
    journal.note(noted("no", refused))
    journal.note(noted("no", { ...refused, owner: "cli" }))
    journal.note(noted("no"))
    now = 60_000
    journal.note(noted("no", refused))
    assert.deepStrictEqual(
      journal.after(0).map(({ at, kind, owner }) => `${at} ${kind} ${owner}`),
      ["0 refused engine", "59999 refused cli", "59999 mapped engine", "60000 refused engine"]
    )
  })
})
