/**
 * The mappings in a SQLite file of the state directory. An unusable file is set aside, never deleted, and replaced by
 * an empty one; `load` reports it. A file that another process removes, moves or replaces is written anew, from what
 * is still open. One process at a time: see `StateLock`.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Clock, Effect, Layer, type Scope } from "effect"
import { type LostRecord, MappingStore, StoreError } from "../../src/mapper/MappingStore.ts"
import { MappingFile, type MappingFileOptions, UnusableFile } from "./MappingFile.ts"
import { storeErrorOf } from "./Sqlite.ts"
import { prepareDirectory } from "./StateDirectory.ts"
import type { StateLock, StateLocked } from "./StateLock.ts"

export interface SqliteOptions extends Partial<Pick<MappingFileOptions, "maxPages" | "migrations">> {
  /** The lock on the directory: renewed before a record is written anew. */
  readonly lock?: StateLock | undefined
}

/** The store in `directory`, which is created (mode 0700) if it is missing. The file closes with the layer. */
export const layer = (
  directory: string,
  options: SqliteOptions = {}
): Layer.Layer<MappingStore, StoreError> => Layer.effect(MappingStore, make(directory, options))

const make = Effect.fnUntraced(function* (
  directory: string,
  { lock, ...options }: SqliteOptions
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
  /** What has to be written anew: the open file was removed, and there is no other one yet. */
  let unwritten: ReturnType<MappingFile["load"]> | undefined
  yield* Effect.addFinalizer(() => Effect.sync(() => file.close()))

  const writeAnew = Effect.gen(function* () {
    yield* prepareDirectory(directory)
    if (lock !== undefined) yield* Effect.mapError(lock.renew, storeErrorOfLock)
    const millis = yield* now()
    yield* attempt("writing the record anew", path, () => {
      const isFirst = unwritten === undefined
      unwritten = unwritten ?? file.load()
      const { mappings, engine } = unwritten
      if (isFirst && Fs.existsSync(path) && !file.hasDatabase()) renameUnsafe(path, asideOf(path, millis))
      for (const suffix of ["", ...suffixes]) Fs.rmSync(path + suffix, { force: true })
      file.close()
      file = open()
      file.put(mappings)
      file.putEngine(engine)
      unwritten = undefined
    })
    yield* Effect.logWarning(`someone removed, moved or replaced ${path}: its content is written anew`)
  })

  const write = (operation: string, change: (file: MappingFile) => void, isNew = false) =>
    Effect.suspend(() => {
      const changed = attempt(operation, path, () => change(file))
      // A change goes to the log. The database is checked less often: a new mapping must not take longer.
      const isThere = unwritten === undefined && (!isNew || file.hasLog())
      return isThere ? changed : Effect.andThen(writeAnew, changed)
    })

  const load = Effect.flatMap(now(), (millis) =>
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
  )
  const check = Effect.suspend(() =>
    unwritten === undefined && file.hasLog() && file.hasDatabase() ? Effect.void : writeAnew
  )

  return MappingStore.of({
    load: Effect.andThen(check, load),
    check,
    put: (records) => {
      const isNew = records.some(({ state }) => state === "applied")
      return write("recording a mapping", (to) => to.put(records), isNew)
    },
    remove: (mappings, instead) => write("forgetting a mapping", (from) => from.remove(mappings, instead)),
    putEngine: (engine) => write("recording the Engine's start", (to) => to.putEngine(engine))
  })
})

const storeErrorOfLock = (error: StateLocked | StoreError): StoreError =>
  error._tag === "StoreError"
    ? error
    : new StoreError({
        reason: "Failed",
        operation: "locking the state directory anew",
        detail: error.message
      })

const attempt = <A>(operation: string, path: string, run: () => A): Effect.Effect<A, StoreError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(run())
    } catch (cause) {
      return Effect.fail(storeErrorOf(operation, path, cause))
    }
  })

const setAsideUnsafe = (path: string, { message }: UnusableFile, nowMillis: number): LostRecord => {
  const aside = asideOf(path, nowMillis)
  renameUnsafe(path, aside)
  return { why: `${path} can't be used: ${message}`, path: aside }
}

const asideOf = (path: string, nowMillis: number): string =>
  `${path}.${new Date(nowMillis).toISOString().replaceAll(/[-:.]/g, "")}`

const suffixes = ["-wal", "-shm", "-journal"]

/** Renames the file, then its log: a log left behind without its file is ignored. */
const renameUnsafe = (path: string, aside: string): void => {
  Fs.renameSync(path, aside)
  for (const suffix of suffixes)
    if (Fs.existsSync(path + suffix)) Fs.renameSync(path + suffix, aside + suffix)
}
