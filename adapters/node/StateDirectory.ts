/**
 * The directory of a plugin's state and the files in it: private to one user, since a user who may write there decides
 * where the host's traffic goes.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect } from "effect"
import { StoreError } from "../../src/mapper/MappingStore.ts"
import { hasCode } from "./FileText.ts"
import { makeFolderUnsafe } from "./makeFolder.ts"
import { replaceablePart } from "./OwnPath.ts"
import { storeErrorOf } from "./Sqlite.ts"

/**
 * Creates the directory with mode 0700 if it is missing. An existing one is left unchanged (its files are private),
 * but refused if another user owns it, or could write to it or replace it.
 */
export const prepareDirectory = (directory: string): Effect.Effect<void, StoreError> =>
  Effect.suspend(() => {
    const operation = "preparing the state directory"
    const refuse = (detail: string) => Effect.fail(new StoreError({ reason: "Failed", operation, detail }))
    try {
      const before = replaceablePart(Path.dirname(Path.resolve(directory)))
      if (before !== undefined) return refuse(before)
      makeFolderUnsafe(directory, 0o700)
      const found = Fs.statSync(directory)
      const user = process.getuid?.() ?? found.uid
      if (found.uid !== user)
        return refuse(`${directory} belongs to user ${found.uid}, this process to user ${user}`)
      if ((found.mode & 0o022) !== 0)
        return refuse(
          `${directory} can be written by others (mode ${(found.mode & 0o7777).toString(8)}); use chmod 700`
        )
      const after = replaceablePart(directory)
      if (after !== undefined) return refuse(after)
      Fs.accessSync(directory, Fs.constants.W_OK)
      return Effect.void
    } catch (cause) {
      return Effect.fail(storeErrorOf(operation, directory, cause))
    }
  })

/**
 * Creates the file with mode 0600 if it is missing. An existing one is not opened: closing it would drop this
 * process's locks on it (fcntl(2)). Throws.
 */
export const touchPrivateUnsafe = (path: string): void => {
  try {
    Fs.closeSync(Fs.openSync(path, "wx", 0o600))
  } catch (cause) {
    if (!hasCode(cause, "EEXIST")) throw cause
    const found = Fs.lstatSync(path)
    if (!found.isFile()) throw new Error(`${path} is not a file`)
    if ((found.mode & 0o777) !== 0o600) Fs.chmodSync(path, 0o600)
  }
}

/** Writes a small file atomically, private by default: a reader sees the old text or the new. Throws. */
export const writeAtomicallyUnsafe = (path: string, text: string, mode = 0o600): void => {
  const unfinished = Path.join(Path.dirname(path), `.${Path.basename(path)}.${process.pid}`)
  Fs.rmSync(unfinished, { force: true })
  try {
    Fs.writeFileSync(unfinished, text, { flag: "wx", mode })
    // Whatever the umask.
    Fs.chmodSync(unfinished, mode)
    Fs.renameSync(unfinished, path)
  } catch (error) {
    Fs.rmSync(unfinished, { force: true })
    throw error
  }
}
