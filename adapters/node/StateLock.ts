/**
 * One process at a time on a state directory. The lock is SQLite's own on an empty database, with `fcntl` record locks
 * underneath: the kernel drops it with the process, however that ends, and we never trust a process id in a file. The
 * holder writes its id beside the lock, for error messages.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { DatabaseSync } from "node:sqlite"
import { Duration, Effect, Result, Schema, type Scope } from "effect"
import type { StoreError } from "../../src/mapper/MappingStore.ts"
import { readText } from "./FileText.ts"
import { monotonicMillis } from "./monotonicMillis.ts"
import { isBusy, openDatabaseUnsafe, storeErrorOf } from "./Sqlite.ts"
import { prepareDirectory, touchPrivateUnsafe, writeAtomicallyUnsafe } from "./StateDirectory.ts"

/** Another process has locked this directory; `pid` if we could find it out. */
export class StateLocked extends Schema.TaggedError<StateLocked>()("StateLocked", {
  directory: Schema.String,
  pid: Schema.UndefinedOr(Schema.Int)
}) {
  override get message(): string {
    return `${this.directory} is in use by ${this.pid === undefined ? "another process" : `process ${this.pid}`}`
  }
}

export interface StateLock {
  /** Locks the directory again where another process removed, moved or replaced it. */
  readonly renew: Effect.Effect<void, StateLocked | StoreError>
}

export interface LockOptions {
  /** How long to wait for another process to release it; not at all if `undefined`. */
  readonly wait?: Duration.Input | undefined
}

/**
 * Locks the directory, which is created if it is missing, until the scope closes. Waiting processes get it in no
 * particular order. Never open and close the file `lock` in a process that holds it: that drops the lock.
 */
export const lockState = Effect.fnUntraced(function* (
  directory: string,
  { wait = 0 }: LockOptions = {}
): Effect.fn.Return<StateLock, StateLocked | StoreError, Scope.Scope> {
  yield* prepareDirectory(directory)
  const deadline = (yield* monotonicMillis) + Duration.toMillis(wait)
  while (true) {
    const locked = yield* Effect.result(Effect.acquireRelease(tryLock(directory), release(directory)))
    if (Result.isSuccess(locked)) return { renew: renew(directory, locked.success) }
    if (locked.failure._tag === "StoreError") return yield* locked.failure
    if ((yield* monotonicMillis) >= deadline)
      return yield* new StateLocked({ directory, pid: yield* holderOf(directory) })
    yield* Effect.sleep(retryMillis)
  }
})

interface Held {
  database: DatabaseSync
  inode: number
}

const renew = Effect.fnUntraced(function* (
  directory: string,
  held: Held
): Effect.fn.Return<void, StateLocked | StoreError> {
  if (inodeOf(lockPath(directory)) === held.inode) return
  const again = yield* Effect.result(tryLock(directory))
  if (Result.isSuccess(again)) {
    held.database.close()
    Object.assign(held, again.success)
  } else if (again.failure._tag === "StoreError") return yield* again.failure
  else return yield* new StateLocked({ directory, pid: yield* holderOf(directory) })
})

const lockPath = (directory: string): string => Path.join(directory, "lock")

const inodeOf = (path: string): number | undefined => Fs.statSync(path, { throwIfNoEntry: false })?.ino

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const retryMillis = 20

const tryLock = (directory: string): Effect.Effect<Held, Busy | StoreError> =>
  Effect.suspend(() => {
    const path = lockPath(directory)
    let database: DatabaseSync | undefined
    try {
      touchPrivateUnsafe(path)
      database = openDatabaseUnsafe(path)
      database.exec("PRAGMA journal_mode = OFF")
      database.exec("BEGIN EXCLUSIVE")
      tellHolder(directory)
      return Effect.succeed({ database, inode: inodeOf(path) ?? 0 })
    } catch (cause) {
      database?.close()
      return Effect.fail(
        isBusy(cause) ? new Busy() : storeErrorOf("locking the state directory", path, cause)
      )
    }
  })

const release = (directory: string) => (held: Held) =>
  Effect.sync(() => {
    try {
      Fs.rmSync(holderPath(directory), { force: true })
    } finally {
      held.database.close()
    }
  })

const Holder = Schema.fromJsonString(
  Schema.Struct({ pid: Schema.Int, started: Schema.UndefinedOr(Schema.String) })
)

const holderPath = (directory: string): string => Path.join(directory, "holder")

/** The lock is valid even if the holder's id can't be written. */
const tellHolder = (directory: string): void => {
  try {
    const holder = { pid: process.pid, started: startOf(process.pid) }
    writeAtomicallyUnsafe(holderPath(directory), `${JSON.stringify(holder)}\n`)
  } catch {
    // Then errors name no process.
  }
}

/** A new holder takes a moment to write its id: until then we read the id of a dead process, and retry. */
const holderOf = Effect.fnUntraced(function* (directory: string) {
  for (let attempt = 0; attempt < 10; attempt++) {
    const pid = yield* Effect.sync(() => liveHolder(directory))
    if (pid !== undefined) return pid
    yield* Effect.sleep(retryMillis)
  }
  return undefined
})

const liveHolder = (directory: string): number | undefined => {
  const text = readText(holderPath(directory))
  if (text === undefined) return undefined
  const holder = Schema.decodeUnknownOption(Holder)(text)
  if (holder._tag === "None") return undefined
  const { pid, started } = holder.value
  return started === startOf(pid) ? pid : undefined
}

/**
 * When a process started, in clock ticks since boot: together with the id this identifies it. See proc_pid_stat(5).
 */
const startOf = (pid: number): string | undefined => {
  const stat = readText(`/proc/${pid}/stat`)
  return stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[19]
}
