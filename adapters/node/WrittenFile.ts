import * as Fs from "node:fs"

/** A file that other programs read, and its content as this program wrote it. */
export interface WrittenFile {
  readonly path: string
  readonly content: string
}

/** Removes the file if it is unchanged. */
export const removeWritten = ({ path, content }: WrittenFile): void => {
  try {
    if (Fs.readFileSync(path, "utf8") === content) Fs.rmSync(path, { force: true })
  } catch {
    // It is gone, or we can't tell that it is ours: leave it.
  }
}
