import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { temporaryFolder } from "../support/folders.ts"
import { records, storedTexts } from "../support/mappings.ts"
import { at, load, numbered, overwrite, setClock, sql, web, withStore } from "./store.ts"

describe("the file of the mappings", () => {
  it.effect("is refused while another process has it open", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const error = yield* withStore(directory, () => Effect.flip(load(directory)))
      assert.deepStrictEqual(
        [error.reason, error.message],
        ["Failed", `opening the store failed: ${directory}/mappings.db is locked by another process`]
      )
    })
  )

  it.effect("names a file in its way", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      const path = Path.join(directory, "mappings.db")
      Fs.mkdirSync(path)
      const error = yield* Effect.flip(load(directory))
      assert.deepStrictEqual(
        [error.reason, error.message],
        ["Failed", `opening the store failed: ${path} is not a file`]
      )
    })
  )

  for (const [title, spoil, why] of [
    [
      "that is not a database",
      (path: string) => Fs.writeFileSync(path, "no database at all".repeat(100)),
      "it is damaged: file is not a database"
    ],
    [
      "whose header is broken",
      (path: string) => overwrite(path, 28, Buffer.alloc(60, 0xff)),
      /^it is damaged: /
    ],
    [
      "whose pages are broken",
      (path: string) => overwrite(path, 4096, Buffer.alloc(4096, 0xa5)),
      /^it is damaged: /
    ],
    [
      "that is cut off",
      (path: string) => Fs.truncateSync(path, Fs.statSync(path).size - 4096),
      /^it is damaged: /
    ],
    [
      "of another program",
      (path: string) => sql(path, "PRAGMA application_id = 1"),
      "it is not a file of portmapper"
    ],
    [
      "with other tables",
      (path: string) => sql(path, "ALTER TABLE mapping RENAME COLUMN owner TO whose"),
      /^its tables are not those of portmapper: /
    ],
    [
      "with an invalid row",
      (path: string) => sql(path, "UPDATE mapping SET host = 'localhost' WHERE port = 8080"),
      "a row can't be read: localhost: not an IPv4 or IPv6 address"
    ],
    [
      "with a row under another's key",
      (path: string) => sql(path, "UPDATE mapping SET port = 8079 WHERE port = 8080"),
      "a row can't be read: 6 0.0.0.0 8080 is not the key of its mapping"
    ]
  ] as const)
    it.effect(`is set aside if it is one ${title}`, () =>
      Effect.gen(function* () {
        yield* setClock
        const directory = yield* temporaryFolder
        const path = Path.join(directory, "mappings.db")
        yield* withStore(directory, (store) =>
          store.put(
            records(
              Array.from({ length: 200 }, (_, index) => numbered(8000 + index)),
              "answered"
            )
          )
        )
        spoil(path)
        const spoilt = Fs.readFileSync(path)
        const { mappings, engine, lost } = yield* withStore(directory, (store) =>
          Effect.tap(store.load, () => store.put(records([web], "answered")))
        )
        assert.deepStrictEqual([mappings, engine], [[], { epoch: 0, activated: false }])
        assert.strictEqual(lost?.path, `${path}.${at}`)
        const reason = lost?.why.replace(`${path} can't be used: `, "") ?? ""
        if (typeof why === "string") assert.strictEqual(reason, why)
        else assert.match(reason, why)
        assert.isTrue(Fs.readFileSync(lost?.path ?? "").equals(spoilt))
        const next = yield* load(directory)
        assert.deepStrictEqual(storedTexts(next.mappings), ["0.0.0.0:8080/tcp -> 172.17.0.2:80 answered"])
        assert.strictEqual(next.lost, undefined)
      })
    )
})

describe("the file of the mappings when it is full", () => {
  it.effect("refuses a group as a whole, keeps what it has, and confirms and removes it", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      yield* withStore(
        directory,
        (store) =>
          Effect.gen(function* () {
            let last = 1000
            while ((yield* Effect.result(store.put(records([numbered(last)], "applied"))))._tag === "Success")
              last++
            const before = storedTexts((yield* store.load).mappings)
            const group = Array.from({ length: 50 }, (_, index) => numbered(20_000 + index))
            const error = yield* Effect.flip(store.put(records([numbered(1000), ...group], "applied")))
            assert.deepStrictEqual(
              [error.reason, error.message],
              ["Full", `recording a mapping failed: no space left for ${directory}/mappings.db`]
            )
            assert.deepStrictEqual(storedTexts((yield* store.load).mappings), before)
            yield* store.put(records([numbered(1000)], "answered"))
            yield* store.putEngine({ epoch: 1, activated: false })
            yield* store.remove([numbered(1001)])
            yield* store.put(records([numbered(1001)], "applied"))
          }),
        { maxPages: 12 }
      )
    })
  )
})
