/**
 * The SQLite file of the mappings: opens, reads and changes it. Everything here throws; `SqliteMappingStore`
 * classifies the errors. While the file is open it is locked (`locking_mode=EXCLUSIVE`): then SQLite needs no memory
 * shared with other processes, and no other process can use it.
 */
import { randomFillSync } from "node:crypto"
import * as Fs from "node:fs"
import type { DatabaseSync, SQLOutputValue, StatementSync } from "node:sqlite"
import { Result } from "effect"
import type { Stored, StoredEngine } from "../../src/mapper/MappingStore.ts"
import { type Mapping, mappingKey } from "../../src/mapper/model/Mapping.ts"
import { attempt } from "./FileText.ts"
import {
  applicationId,
  makeRowReader,
  migrateUnsafe,
  migrations,
  rowOf,
  selectMappings,
  updateState,
  upsertMapping
} from "./MappingSchema.ts"
import { isDamage, isFull, isMisfit, openDatabaseUnsafe } from "./Sqlite.ts"
import { touchPrivateUnsafe } from "./StateDirectory.ts"

/** The file can't be used as it is: damaged, or not ours. */
export class UnusableFile extends Error {}

export interface MappingFileOptions {
  /** Reserved space, for confirming and removing mappings once the file system is full. */
  readonly sparePath: string
  /** The most pages the database may have; for tests. */
  readonly maxPages?: number | undefined
  readonly migrations?: ReadonlyArray<string> | undefined
}

/** How long to wait for another process that reads the file. */
const busyMillis = 500

/** The log is written back to the database after this many pages of 4 KiB, so it takes about 1 MiB. */
const checkpointPages = 256

/**
 * More than the pages that checkpoints can add to the database: one that fails for lack of space leaves its pages to
 * the next.
 */
const spareBytes = 256 * 1024

export class MappingFile {
  readonly #file: OpenFile
  readonly #log: OpenFile
  readonly #database: DatabaseSync
  readonly #sparePath: string
  #spare: boolean
  readonly #begin: StatementSync
  readonly #commit: StatementSync
  readonly #rollback: StatementSync
  readonly #select: StatementSync
  readonly #selectEngine: StatementSync
  readonly #upsert: StatementSync
  readonly #updateState: StatementSync
  readonly #delete: StatementSync
  readonly #updateEngine: StatementSync
  /** The written rows of mappings that are not answered yet, by key: confirming one changes only its state. */
  readonly #written = new Map<string, Mapping>()

  /** Opens the file; creates it if it is missing, migrates it if it is old. */
  constructor(path: string, options: MappingFileOptions) {
    touchPrivateUnsafe(path)
    this.#sparePath = options.sparePath
    this.#database = openDatabaseUnsafe(path, busyMillis)
    try {
      prepare(this.#database, options)
      const statement = (sql: string) => this.#database.prepare(sql)
      this.#begin = statement("BEGIN IMMEDIATE")
      this.#commit = statement("COMMIT")
      this.#rollback = statement("ROLLBACK")
      this.#select = statement(selectMappings)
      this.#select.setReturnArrays(true)
      this.#selectEngine = statement("SELECT epoch, activated FROM engine WHERE id = 1")
      this.#upsert = statement(upsertMapping)
      this.#updateState = statement(updateState)
      this.#delete = statement("DELETE FROM mapping WHERE key = ?")
      this.#updateEngine = statement("UPDATE engine SET epoch = ?, activated = ? WHERE id = 1")
    } catch (cause) {
      this.#database.close()
      if (isDamage(cause)) throw damaged(cause)
      if (isMisfit(cause))
        throw new UnusableFile(`its tables are not those of portmapper: ${messageOf(cause)}`)
      throw cause
    }
    this.#file = new OpenFile(path)
    this.#log = new OpenFile(`${path}-wal`)
    this.#spare = Fs.statSync(this.#sparePath, { throwIfNoEntry: false })?.size === spareBytes
    if (!this.#spare) this.#tryMakeSpare()
  }

  /** Whether the open log still has its name: not if another process removed, moved or replaced it, or its folder. */
  hasLog(): boolean {
    return this.#log.isThere()
  }

  /** The same for the database. */
  hasDatabase(): boolean {
    return this.#file.isThere()
  }

  load(): { readonly mappings: ReadonlyArray<Stored>; readonly engine: StoredEngine } {
    try {
      const [epoch, activated] = Object.values(this.#selectEngine.get() ?? {})
      if (epoch === undefined) throw new UnusableFile("a row is missing")
      const mappings: Array<Stored> = []
      const read = makeRowReader()
      for (const row of this.#select.all() as Array<unknown> as Array<Array<SQLOutputValue>>) {
        const stored = read(row)
        if (Result.isFailure(stored)) throw new UnusableFile(`a row can't be read: ${stored.failure}`)
        mappings.push(stored.success)
      }
      return {
        mappings,
        engine: { epoch: Number(epoch), activated: activated === 1 }
      }
    } catch (cause) {
      throw isDamage(cause) ? damaged(cause) : cause
    }
  }

  put(records: ReadonlyArray<Stored>): void {
    const isNew = records.some(({ state }) => state === "applied")
    if (isNew && !this.#spare) this.#makeSpare()
    const isThere = records.map(({ mapping }) => this.#written.get(mappingKey(mapping)) === mapping)
    this.#forget(records.map(({ mapping }) => mapping))
    this.#write(
      records.length,
      () => {
        for (const [index, { mapping, state }] of records.entries()) {
          if (isThere[index] && this.#updateState.run(state, mappingKey(mapping)).changes === 1) continue
          this.#upsert.run(...rowOf({ mapping, state }))
        }
      },
      !isNew
    )
    for (const { mapping, state } of records)
      if (state === "applied") this.#written.set(mappingKey(mapping), mapping)
  }

  /** Called before a change, since a change that fails may have been written all the same. */
  #forget(mappings: ReadonlyArray<Mapping>): void {
    for (const mapping of mappings) this.#written.delete(mappingKey(mapping))
  }

  remove(mappings: ReadonlyArray<Mapping>, instead: ReadonlyArray<Stored> = []): void {
    this.#forget([...mappings, ...instead.map(({ mapping }) => mapping)])
    this.#write(
      mappings.length + instead.length,
      () => {
        for (const mapping of mappings) this.#delete.run(mappingKey(mapping))
        for (const each of instead) this.#upsert.run(...rowOf(each))
      },
      true
    )
  }

  putEngine({ epoch, activated }: StoredEngine): void {
    this.#write(1, () => this.#updateEngine.run(epoch, activated ? 1 : 0), true)
  }

  /** Closes the database and removes its log, whose space may replace a used spare. Closing again does nothing. */
  close(): void {
    if (!this.#database.isOpen) return
    this.#database.close()
    if (!this.#spare) this.#tryMakeSpare()
  }

  /**
   * Runs one transaction. If the disk is full it is retried after a checkpoint, which frees room in the log without
   * more disk space; then, if it must fit, without the spare file.
   */
  #write(statements: number, run: () => void, mustFit: boolean): void {
    try {
      this.#transaction(statements, run)
    } catch (cause) {
      if (!isFull(cause)) throw cause
      this.#writeBack()
      try {
        this.#transaction(statements, run)
      } catch (again) {
        if (!isFull(again) || !mustFit || !this.#spare) throw again
        Fs.rmSync(this.#sparePath, { force: true })
        this.#spare = false
        this.#writeBack()
        this.#transaction(statements, run)
      }
    }
  }

  /** A single statement needs no explicit transaction. */
  #transaction(statements: number, run: () => void): void {
    if (statements <= 1) {
      run()
      return
    }
    this.#begin.run()
    try {
      run()
      this.#commit.run()
    } catch (cause) {
      if (this.#database.isTransaction) this.#rollback.run()
      throw cause
    }
  }

  #writeBack(): void {
    try {
      this.#database.exec("PRAGMA wal_checkpoint(RESTART)")
    } catch (cause) {
      if (!isFull(cause)) throw cause
    }
  }

  #makeSpare(): void {
    try {
      // Random, since a compressing file system would reserve no space for zeros.
      Fs.writeFileSync(this.#sparePath, randomFillSync(new Uint8Array(spareBytes)), { mode: 0o600 })
      this.#spare = true
    } catch (cause) {
      Fs.rmSync(this.#sparePath, { force: true })
      throw cause
    }
  }

  #tryMakeSpare(): void {
    try {
      this.#makeSpare()
    } catch (cause) {
      if (!isFull(cause)) throw cause
    }
  }
}

/** The identity of a file that is open. */
class OpenFile {
  readonly #path: string
  readonly #found: Fs.Stats | undefined

  constructor(path: string) {
    this.#path = path
    this.#found = statOf(path)
  }

  isThere(): boolean {
    const found = statOf(this.#path)
    return found !== undefined && found.ino === this.#found?.ino && found.dev === this.#found.dev
  }
}

const statOf = (path: string): Fs.Stats | undefined => attempt(() => Fs.statSync(path))

/** An unusable file is left unchanged. */
const prepare = (database: DatabaseSync, options: MappingFileOptions): void => {
  const steps = options.migrations ?? migrations
  database.exec("PRAGMA locking_mode = EXCLUSIVE")
  const version = Number(valueOf(database, "PRAGMA user_version"))
  const isNew = version === 0 && valueOf(database, "SELECT count(*) FROM sqlite_schema") === 0
  if (!isNew) {
    if (valueOf(database, "PRAGMA application_id") !== applicationId)
      throw new UnusableFile("it is not a file of portmapper")
    if (version > steps.length) throw new Error(laterRecord(version, steps.length))
    const check = valueOf(database, "PRAGMA quick_check(1)")
    if (check !== "ok") throw damaged(check)
  }
  // With a write-ahead log a commit survives a kill at once. NORMAL: after a power failure the last commits may be
  // missing, as are the kernel rules that they describe, but the file is intact.
  database.exec("PRAGMA journal_mode = WAL")
  database.exec("PRAGMA synchronous = NORMAL")
  database.exec(`PRAGMA wal_autocheckpoint = ${checkpointPages}`)
  if (options.maxPages !== undefined) database.exec(`PRAGMA max_page_count = ${options.maxPages}`)
  migrateUnsafe(database, version, steps)
}

/** Not set aside: the version that wrote it can still use it, and what it published is live. */
const laterRecord = (version: number, known: number): string =>
  `it is of version ${version}, and this portmapper reads up to ${known}: start the one that wrote it, or remove all that it published by portmapper reset`

const valueOf = (database: DatabaseSync, sql: string): unknown =>
  Object.values(database.prepare(sql).get() ?? {})[0]

const damaged = (cause: unknown): UnusableFile => new UnusableFile(`it is damaged: ${messageOf(cause)}`)

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
