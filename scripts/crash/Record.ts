/**
 * The plugin's record of its mappings, read from a copy: the plugin keeps the file itself locked as long as it
 * runs.
 */
import { copyFileSync, existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { type Binding, textOf } from "./Ledger.ts"

export interface Recorded {
  /** In the format of `textOf`. */
  readonly text: string
  readonly state: string
}

/** Call while no request is in flight. */
export const recorded = (stateDirectory: string): ReadonlyArray<Recorded> => {
  const folder = mkdtempSync(join(tmpdir(), "portmapper-crash-"))
  try {
    const copy = join(folder, "mappings.db")
    for (const suffix of ["", "-wal"]) {
      const path = join(stateDirectory, `mappings.db${suffix}`)
      if (existsSync(path)) copyFileSync(path, copy + suffix)
    }
    const database = new DatabaseSync(copy)
    try {
      return database
        .prepare("SELECT protocol, host, port, backend_host, backend_port, state FROM mapping")
        .all()
        .map((row) => ({ text: textOf(bindingOf(row)), state: String(row["state"]) }))
    } finally {
      database.close()
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const bindingOf = (row: Record<string, unknown>): Binding => ({
  Proto: Number(row["protocol"]),
  FrontendIP: String(row["host"]),
  FrontendPort: Number(row["port"]),
  BackendIP: String(row["backend_host"]),
  BackendPort: Number(row["backend_port"])
})
