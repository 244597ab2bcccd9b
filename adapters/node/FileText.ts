import * as Fs from "node:fs"

/** `undefined` if the file can't be read, as under `/proc` for what is gone or not in this kernel. */
export const readText = (path: string): string | undefined => {
  try {
    return Fs.readFileSync(path, "utf8")
  } catch {
    return undefined
  }
}

export const hasCode = (cause: unknown, code: string): boolean =>
  typeof cause === "object" && cause !== null && "code" in cause && cause.code === code

/** `undefined` if there is no such file. Throws other system errors. */
export const readIfThereUnsafe = (path: string): string | undefined => {
  try {
    return Fs.readFileSync(path, "utf8")
  } catch (error) {
    if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return undefined
    throw error
  }
}
