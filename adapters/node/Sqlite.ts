/**
 * `node:sqlite`, loaded at first use and without its experimental warning, and the classification of its errors.
 * Result codes: https://sqlite.org/rescode.html
 */
import type { DatabaseSync } from "node:sqlite"
import { StoreError } from "../../src/mapper/MappingStore.ts"
import { hasCode } from "./FileText.ts"

/** Opens a database. Throws. */
export const openDatabaseUnsafe = (path: string, busyMillis = 0): DatabaseSync => {
  const { DatabaseSync } = quietly(() => process.getBuiltinModule("node:sqlite") ?? missing())
  return new DatabaseSync(path, { timeout: busyMillis })
}

const missing = (): never => {
  throw new Error("this build of Node.js has no node:sqlite")
}

/** The module warns once, while it loads; loading is synchronous, so no other warning is suppressed. */
const quietly = <A>(load: () => A): A => {
  const emitWarning = process.emitWarning
  process.emitWarning = (...warning: ReadonlyArray<unknown>) => {
    if (warning[1] === "ExperimentalWarning" && String(warning[0]).includes("SQLite")) return
    Reflect.apply(emitWarning, process, warning)
  }
  try {
    return load()
  } finally {
    process.emitWarning = emitWarning
  }
}

/** Primary result codes. */
const codes = {
  error: 1,
  busy: 5,
  locked: 6,
  readOnly: 8,
  corrupt: 11,
  full: 13,
  cantOpen: 14,
  constraint: 19,
  mismatch: 20,
  notADb: 26
}

/** The primary result code of an error of SQLite; `undefined` for any other error. */
const codeOf = (cause: unknown): number | undefined =>
  typeof cause === "object" && cause !== null && "errcode" in cause && typeof cause.errcode === "number"
    ? cause.errcode & 0xff
    : undefined

/** The file is not a database, or is corrupt. */
export const isDamage = (cause: unknown): boolean =>
  codeOf(cause) === codes.corrupt || codeOf(cause) === codes.notADb

/** A statement does not fit what the file holds. */
export const isMisfit = (cause: unknown): boolean =>
  [codes.error, codes.constraint, codes.mismatch].some((code) => code === codeOf(cause))

/** Another connection has the lock. */
export const isBusy = (cause: unknown): boolean =>
  codeOf(cause) === codes.busy || codeOf(cause) === codes.locked

/** No space left, reported by SQLite or by the file system. */
export const isFull = (cause: unknown): boolean =>
  codeOf(cause) === codes.full || hasCode(cause, "ENOSPC") || hasCode(cause, "EDQUOT")

/** The `StoreError` of an exception thrown by an operation on `path`, a file or a directory. */
export const storeErrorOf = (operation: string, path: string, cause: unknown): StoreError =>
  isFull(cause)
    ? new StoreError({ reason: "Full", operation, detail: `no space left for ${path}` })
    : new StoreError({ reason: "Failed", operation, detail: detailOf(path, cause) })

const detailOf = (path: string, cause: unknown): string => {
  const message = cause instanceof Error ? cause.message : String(cause)
  if (isBusy(cause)) return `${path} is locked by another process`
  if (isDamage(cause)) return `${path} is damaged (${message})`
  switch (codeOf(cause)) {
    case codes.readOnly:
      return `${path} is read-only`
    case codes.cantOpen:
      return `${path} can't be opened`
    default:
      return message.includes(path) ? message : `${path}: ${message}`
  }
}
