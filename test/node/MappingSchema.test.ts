import * as Path from "node:path"
import { DatabaseSync, type SQLOutputValue } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { makeRowReader, migrations, rowOf } from "../../adapters/node/MappingSchema.ts"
import { mappingKey } from "../../src/mapper/model/Mapping.ts"
import { temporaryFolder } from "../support/folders.ts"
import { mapping, records } from "../support/mappings.ts"
import { at, load, numbered, setClock, sql, withStore } from "./store.ts"

describe("a file of an older version", () => {
  it.effect("is migrated step by step, each step whole or not at all", () =>
    Effect.gen(function* () {
      yield* setClock
      const directory = yield* temporaryFolder
      const path = Path.join(directory, "mappings.db")
      yield* withStore(directory, (store) => store.put(records([numbered(1), numbered(2)], "answered")))
      const steps = [...migrations, "CREATE TABLE note (text TEXT) STRICT"]
      const migrated = yield* withStore(directory, (store) => store.load, { migrations: steps })
      assert.strictEqual(migrated.mappings.length, 2)
      const broken = [...steps, "DROP TABLE note; CREATE UNIQUE INDEX one ON mapping (backend_port)"]
      const { mappings, lost } = yield* withStore(directory, (store) => store.load, { migrations: broken })
      assert.deepStrictEqual(mappings, [])
      assert.deepStrictEqual(lost, {
        why: `${path} can't be used: its tables are not those of portmapper: UNIQUE constraint failed: mapping.backend_port`,
        path: `${path}.${at}`
      })
      const aside = new DatabaseSync(lost?.path ?? "")
      assert.deepStrictEqual(
        { ...aside.prepare("PRAGMA user_version").get() },
        {
          user_version: migrations.length + 1
        }
      )
      assert.deepStrictEqual(aside.prepare("SELECT text FROM note").all(), [])
      aside.close()
    })
  )

  it.effect("keeps the mappings of version 1, whose containers are unknown", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const belonging = { ...numbered(1), container: "engine 0123" }
      yield* withStore(directory, (store) => store.put(records([belonging], "answered")))
      assert.deepStrictEqual((yield* load(directory)).mappings, records([belonging], "answered"))
      sql(
        Path.join(directory, "mappings.db"),
        "ALTER TABLE mapping DROP COLUMN drained; ALTER TABLE mapping DROP COLUMN share; ALTER TABLE mapping DROP COLUMN container; PRAGMA user_version = 1"
      )
      const { mappings, lost } = yield* load(directory)
      assert.deepStrictEqual([mappings, lost], [records([numbered(1)], "answered"), undefined])
    })
  )
})

describe("a row of a mapping", () => {
  const drained = mapping("tcp 0.0.0.0 172.17.0.2:80", 8080, {
    share: { service: "web", balance: "source", size: 64, slots: [0, 1, 2, 63] },
    drained: true
  })
  /** The row with one value in another's place, by the index of its column. */
  const read = (column?: number, value: string | number | null = null) => {
    const row = rowOf({ mapping: drained, state: "answered" }) as Array<SQLOutputValue>
    return makeRowReader()(column === undefined ? row : row.with(column, value))
  }

  it("is read as it was written, and one that 0.1 had not finished as not answered yet", () => {
    assert.deepStrictEqual(read(), Result.succeed({ mapping: drained, state: "answered" }))
    assert.deepStrictEqual(read(1, "intent"), Result.succeed({ mapping: drained, state: "applied" }))
  })

  const share = (more: object) =>
    JSON.stringify({ service: "web", balance: "random", size: 64, slots: "0", ...more })
  it.each([
    [0, "6 0.0.0.0 8081", "6 0.0.0.0 8081 is not the key of its mapping"],
    [2, 1, "there is no protocol 1"],
    [3, "localhost", "localhost: not an IPv4 or IPv6 address"],
    [6, "", ": not an IPv4 or IPv6 address"],
    [8, "bridge", "there is no mode bridge"],
    [9, '[["a"]]', "the labels of KEY are not pairs of texts"],
    [9, "{}", "the labels of KEY are not pairs of texts"],
    [14, "[", "[ of KEY is no part in a service"],
    ...[{ size: 63 }, { slots: "64" }, { slots: "a" }, { balance: "leastconn" }, { service: 1 }].map(
      (more) => [14, share(more), `${share(more)} of KEY is no part in a service`] as const
    )
  ] as const)("is refused with its column %d as %s", (column, value, why) => {
    assert.deepStrictEqual(read(column, value), Result.fail(why.replace("KEY", mappingKey(drained))))
  })
})
