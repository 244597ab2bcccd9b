import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { migrations } from "../../adapters/node/MappingSchema.ts"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { lockState } from "../../adapters/node/StateLock.ts"
import { MappingStore, type StoreError } from "../../src/mapper/MappingStore.ts"
import { mappingStoreConformance, remarkable } from "../mapper/mappingStoreConformance.ts"
import { temporaryFolder } from "../support/folders.ts"
import { mapping, records, storedTexts } from "../support/mappings.ts"

mappingStoreConformance("the store in a file", () =>
  Layer.unwrap(Effect.map(temporaryFolder, (directory) => SqliteMappingStore.layer(directory)))
)

/** One run of the store in this folder. */
const withStore = <A, E>(
  directory: string,
  use: (store: MappingStore["Service"]) => Effect.Effect<A, E>,
  options?: SqliteMappingStore.SqliteOptions
): Effect.Effect<A, E | StoreError> =>
  MappingStore.use(use).pipe(Effect.provide(Layer.fresh(SqliteMappingStore.layer(directory, options))))

const load = (directory: string) => withStore(directory, (store) => store.load)
const web = mapping("tcp 0.0.0.0 172.17.0.2:80", 8080)
const numbered = (port: number) => mapping("tcp 0.0.0.0 172.17.0.2:80", port)

const at = "20231114T221320000Z"
const setClock = TestClock.setTime(1_700_000_000_000)

describe("a file of the mappings that another process", () => {
  const first = records([web, numbered(8081)], "answered")
  const second = records([numbered(8082)], "applied")
  const texts = ["8080", "8081"].map((port) => `0.0.0.0:${port}/tcp -> 172.17.0.2:80 answered`)
  const all = [...texts, "0.0.0.0:8082/tcp -> 172.17.0.2:80 applied"]

  for (const [title, damage, left] of [
    ["removes with its folder", (directory: string) => Fs.rmSync(directory, { recursive: true }), []],
    ["moves with its folder", (directory: string) => Fs.renameSync(directory, `${directory}-moved`), []],
    ["removes", (directory: string) => Fs.rmSync(Path.join(directory, "mappings.db")), []],
    ["takes the log from", (directory: string) => Fs.rmSync(Path.join(directory, "mappings.db-wal")), []],
    [
      "replaces",
      (directory: string) => {
        Fs.writeFileSync(Path.join(directory, "other"), "a backup")
        Fs.renameSync(Path.join(directory, "other"), Path.join(directory, "mappings.db"))
      },
      [`mappings.db.${at}`, `mappings.db.${at}-wal`]
    ]
  ] as const)
    it.effect(`${title} is written anew by a check, and by the next record where it has no log`, () =>
      Effect.gen(function* () {
        yield* setClock
        for (const isCheck of [false, true]) {
          const directory = Path.join(yield* temporaryFolder, "state")
          const scope = yield* Scope.make()
          const lock = yield* Scope.provide(lockState(directory), scope)
          const built = yield* Layer.buildWithScope(SqliteMappingStore.layer(directory, { lock }), scope)
          const store = Context.get(built, MappingStore)
          yield* store.put(first)
          yield* store.putEngine({ epoch: 3, activated: true })
          damage(directory)
          const hasLog = Fs.existsSync(Path.join(directory, "mappings.db-wal"))
          if (!isCheck) yield* store.put(second)
          if (isCheck || hasLog) yield* store.check
          // The files as a kill leaves them.
          const copy = `${directory}-copy`
          Fs.cpSync(directory, copy, { recursive: true })
          const found = yield* load(copy)
          assert.deepStrictEqual(storedTexts(found.mappings), isCheck ? texts : all)
          assert.deepStrictEqual(found.engine, { epoch: 3, activated: true })
          assert.deepStrictEqual(
            Fs.readdirSync(directory)
              .filter((name) => name !== "lock-journal")
              .sort(),
            ["holder", "lock", "mappings.db", "mappings.db-wal", ...left, "spare"].sort()
          )
          const other = yield* Effect.flip(Effect.scoped(lockState(directory)))
          assert.strictEqual(other._tag, "StateLocked")
          yield* Scope.close(scope, Exit.void)
          assert.deepStrictEqual(storedTexts((yield* load(directory)).mappings), isCheck ? texts : all)
        }
      })
    )

  it.effect("removes is refused until it can be written anew, and keeps its content", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* temporaryFolder, "state")
      yield* withStore(directory, (store) =>
        Effect.gen(function* () {
          yield* store.put(first)
          Fs.rmSync(directory, { recursive: true })
          Fs.writeFileSync(directory, "in the way")
          for (const refused of [store.put(second), store.check, store.load])
            assert.strictEqual(
              (yield* Effect.flip(refused)).message,
              `preparing the state directory failed: EEXIST: file already exists, mkdir '${directory}'`
            )
          Fs.rmSync(directory)
          yield* store.put(second)
        })
      )
      assert.deepStrictEqual(storedTexts((yield* load(directory)).mappings), all)
    })
  )

  it.effect("removes is refused while a third process has the folder", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* temporaryFolder, "state")
      const lock = yield* lockState(directory)
      yield* Effect.gen(function* () {
        const store = yield* MappingStore
        yield* store.put(first)
        Fs.rmSync(directory, { recursive: true })
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* lockState(directory)
            assert.strictEqual(
              (yield* Effect.flip(store.put(second))).message,
              `locking the state directory anew failed: ${directory} is in use by process ${process.pid}`
            )
          })
        )
        yield* store.put(second)
        assert.deepStrictEqual(storedTexts((yield* store.load).mappings), all)
      }).pipe(Effect.provide(SqliteMappingStore.layer(directory, { lock })))
    })
  )
})

describe("the file of the mappings", () => {
  it.effect("is found by the next process, in a private folder with private files", () =>
    Effect.gen(function* () {
      const directory = Path.join(yield* temporaryFolder, "run", "portmapper")
      yield* withStore(directory, (store) =>
        Effect.andThen(
          store.put(records(remarkable, "answered")),
          store.putEngine({ epoch: 2, activated: true })
        )
      )
      const { mappings, engine, lost } = yield* load(directory)
      assert.strictEqual(mappings.length, remarkable.length)
      assert.deepStrictEqual(engine, { epoch: 2, activated: true })
      assert.strictEqual(lost, undefined)
      yield* withStore(directory, () =>
        Effect.sync(() => {
          const modeOf = (path: string) => (Fs.statSync(path).mode & 0o777).toString(8)
          assert.strictEqual(modeOf(directory), "700")
          const files = Fs.readdirSync(directory).sort()
          assert.deepStrictEqual(files, ["mappings.db", "mappings.db-wal", "spare"])
          for (const file of files) assert.strictEqual(modeOf(Path.join(directory, file)), "600")
        })
      )
    })
  )

  it.effect("is refused in a folder that others may write to", () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      Fs.chmodSync(directory, 0o777)
      const error = yield* Effect.flip(load(directory))
      assert.strictEqual(
        error.message,
        `preparing the state directory failed: ${directory} can be written by others (mode 777); use chmod 700`
      )
    })
  )

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

describe("an unreadable file of the mappings", () => {
  it.effect("that can't be set aside either is reported, and closed", () =>
    Effect.gen(function* () {
      yield* setClock
      const directory = yield* temporaryFolder
      const path = Path.join(directory, "mappings.db")
      yield* withStore(directory, (store) => store.put(records([web], "answered")))
      sql(path, "UPDATE mapping SET host = 'localhost'")
      Fs.mkdirSync(`${path}.${at}`)
      const error = yield* Effect.flip(load(directory))
      assert.deepStrictEqual(
        [error.reason, error.message],
        [
          "Failed",
          `reading the store failed: EISDIR: illegal operation on a directory, rename '${path}' -> '${path}.${at}'`
        ]
      )
      Fs.rmdirSync(`${path}.${at}`)
      assert.strictEqual((yield* load(directory)).lost?.path, `${path}.${at}`)
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

const sql = (path: string, statement: string): void => {
  const database = new DatabaseSync(path)
  database.exec(statement)
  database.close()
}

const overwrite = (path: string, offset: number, bytes: Buffer): void => {
  const file = Fs.openSync(path, "r+")
  Fs.writeSync(file, bytes, 0, bytes.length, offset)
  Fs.closeSync(file)
}
