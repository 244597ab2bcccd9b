import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { lockState } from "../../adapters/node/StateLock.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { mappingStoreConformance, remarkable } from "../mapper/mappingStoreConformance.ts"
import { temporaryFolder } from "../support/folders.ts"
import { records, storedTexts } from "../support/mappings.ts"
import { at, load, numbered, setClock, sql, web, withStore } from "./store.ts"

mappingStoreConformance("the store in a file", () =>
  Layer.unwrap(Effect.map(temporaryFolder, (directory) => SqliteMappingStore.layer(directory)))
)

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
