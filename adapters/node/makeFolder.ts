/** Makes a folder and those above it. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { hasCode } from "./FileText.ts"

/**
 * Those that are missing get this mode, less the umask. Throws system errors. Not `mkdirSync` with `recursive`: that
 * one never returns where the kernel answers ENOENT in a folder that exists, as below /proc.
 */
export const makeFolderUnsafe = (folder: string, mode: number): void => {
  if (Fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory()) return
  const above = Path.dirname(folder)
  if (above !== folder) makeFolderUnsafe(above, mode)
  try {
    Fs.mkdirSync(folder, { mode })
  } catch (cause) {
    // Another process may have made it meanwhile.
    if (!hasCode(cause, "EEXIST") || !Fs.statSync(folder).isDirectory()) throw cause
  }
}
