/**
 * The mappings in a SQLite file of the state directory. An unusable file is set aside, never deleted, and replaced by
 * an empty one; `load` reports it. One process at a time: see `StateLock`.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Clock, Effect, Layer, type Scope } from "effect"
import { type LostRecord, MappingStore, type StoreError } from "../../src/mapper/MappingStore.ts"
import { MappingFile, type MappingFileOptions, UnusableFile } from "./MappingFile.ts"
import { storeErrorOf } from "./Sqlite.ts"
import { prepareDirectory } from "./StateDirectory.ts"

export type SqliteOptions = Partial<Pick<MappingFileOptions, "maxPages" | "migrations">>

/** The store in `directory`, which is created (mode 0700) if it is missing. The file closes with the layer. */
export const layer = (
  directory: string,
  options: SqliteOptions = {}
): Layer.Layer<MappingStore, StoreError> => Layer.effect(MappingStore, make(directory, options))

const make = Effect.fnUntraced(function* (
  directory: string,
  options: SqliteOptions
): Effect.fn.Return<MappingStore["Service"], StoreError, Scope.Scope> {
  yield* prepareDirectory(directory)
  const path = Path.join(directory, "mappings.db")
  const open = () => new MappingFile(path, { ...options, sparePath: Path.join(directory, "spare") })
  let lost: LostRecord | undefined
  const now = () => Clock.currentTimeMillis

  /** Opens the file; sets an unusable one aside and creates a new one. */
  const openOrReplace = Effect.flatMap(now(), (millis) =>
    attempt("opening the store", path, () => {
      try {
        return open()
      } catch (cause) {
        if (!(cause instanceof UnusableFile)) throw cause
        lost = setAsideUnsafe(path, cause, millis)
        return open()
      }
    })
  )

  let file = yield* openOrReplace
  yield* Effect.addFinalizer(() => Effect.sync(() => file.close()))

  const write = (operation: string, change: (file: MappingFile) => void) =>
    attempt(operation, path, () => change(file))

  return MappingStore.of({
    load: Effect.flatMap(now(), (millis) =>
      attempt("reading the store", path, () => {
        try {
          return { ...file.load(), lost }
        } catch (cause) {
          if (!(cause instanceof UnusableFile)) throw cause
          file.close()
          lost = setAsideUnsafe(path, cause, millis)
          file = open()
          return { ...file.load(), lost }
        }
      })
    ),
    put: (records) => write("recording a mapping", (to) => to.put(records)),
    remove: (mappings, instead) => write("forgetting a mapping", (from) => from.remove(mappings, instead)),
    putEngine: (engine) => write("recording the Engine's start", (to) => to.putEngine(engine))
  })
})

const attempt = <A>(operation: string, path: string, run: () => A): Effect.Effect<A, StoreError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run())
    } catch (cause) {
      return Effect.fail(storeErrorOf(operation, path, cause))
    }
  })

/** Renames the file, then its log: a log left behind without its file is ignored. */
const setAsideUnsafe = (path: string, { message }: UnusableFile, nowMillis: number): LostRecord => {
  const stamp = new Date(nowMillis).toISOString().replaceAll(/[-:.]/g, "")
  const aside = `${path}.${stamp}`
  Fs.renameSync(path, aside)
  for (const suffix of ["-wal", "-shm", "-journal"])
    if (Fs.existsSync(path + suffix)) Fs.renameSync(path + suffix, aside + suffix)
  return { why: `${path} can't be used: ${message}`, path: aside }
}
