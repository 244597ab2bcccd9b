/** Runs of the store in a folder, and what spoils its file. */
import * as Fs from "node:fs"
import { DatabaseSync } from "node:sqlite"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { MappingStore, type StoreError } from "../../src/mapper/MappingStore.ts"
import { mapping } from "../support/mappings.ts"

/** One run of the store in this folder. */
export const withStore = <A, E>(
  directory: string,
  use: (store: MappingStore["Service"]) => Effect.Effect<A, E>,
  options?: SqliteMappingStore.SqliteOptions
): Effect.Effect<A, E | StoreError> =>
  MappingStore.use(use).pipe(Effect.provide(Layer.fresh(SqliteMappingStore.layer(directory, options))))

export const load = (directory: string) => withStore(directory, (store) => store.load)
export const web = mapping("tcp 0.0.0.0 172.17.0.2:80", 8080)
export const numbered = (port: number) => mapping("tcp 0.0.0.0 172.17.0.2:80", port)

export const at = "20231114T221320000Z"
export const setClock = TestClock.setTime(1_700_000_000_000)

export const sql = (path: string, statement: string): void => {
  const database = new DatabaseSync(path)
  database.exec(statement)
  database.close()
}

export const overwrite = (path: string, offset: number, bytes: Buffer): void => {
  const file = Fs.openSync(path, "r+")
  Fs.writeSync(file, bytes, 0, bytes.length, offset)
  Fs.closeSync(file)
}
