import * as Fs from "node:fs"

/** `undefined` if the file can't be read, as under `/proc` for what is gone or not in this kernel. */
export const readText = (path: string): string | undefined => {
  try {
    return Fs.readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}
