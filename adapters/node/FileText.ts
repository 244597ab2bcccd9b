import * as Fs from "node:fs"

/** `undefined` if it throws, as under `/proc` for what is gone, not readable for us, or not in this kernel. */
export const attempt = <A>(look: () => A): A | undefined => {
  try {
    return look()
  } catch {
    return undefined
  }
}

export const readText = (path: string): string | undefined => attempt(() => Fs.readFileSync(path, "utf8"))

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
