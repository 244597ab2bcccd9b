import { assert, describe, it } from "@effect/vitest"
import { Ledger } from "../../src/cluster/Ledger.ts"

describe("a ledger", () => {
  it("still owes what became owed while the rest was given back", () => {
    const ledger = new Ledger()
    const claim = (name: string) => ({ cell: "0125", name, revision: 2 })
    ledger.owe([claim("tcp.8000.a")])
    const givenBack = ledger.returning
    ledger.owe([claim("tcp.8001.a")])
    ledger.returned(givenBack)
    assert.deepStrictEqual(ledger.returning, [claim("tcp.8001.a")])
  })
})
