/** Folders of which another user could rename or replace a part, as a first start may find them. */
import * as Fs from "node:fs"
import * as Path from "node:path"

export interface ReplaceableFolder {
  readonly title: string
  /** Makes it below a private folder, and returns its path. */
  readonly make: (base: string) => string
  /** The part that the error must name, from the base. */
  readonly named: string
  /** Gives a file to another user. */
  readonly needsRoot: boolean
}

const someone = 12_345

const made = (path: string, mode: number, uid?: number): string => {
  Fs.mkdirSync(path)
  Fs.chmodSync(path, mode)
  if (uid !== undefined) Fs.chownSync(path, uid, uid)
  return path
}

export const replaceableFolders: ReadonlyArray<ReplaceableFolder> = [
  {
    title: "in a folder that all may write to",
    make: (base) => made(Path.join(base, "run"), 0o777),
    named: "run",
    needsRoot: false
  },
  {
    title: "in a folder that its group may write to",
    make: (base) => made(Path.join(base, "run"), 0o770),
    named: "run",
    needsRoot: false
  },
  {
    title: "below such a folder",
    make: (base) => made(Path.join(made(Path.join(base, "run"), 0o777), "mine"), 0o700),
    named: "run",
    needsRoot: false
  },
  {
    title: "below a folder that is not there yet in such a folder",
    make: (base) => Path.join(made(Path.join(base, "run"), 0o777), "mine"),
    named: "run",
    needsRoot: false
  },
  {
    title: "in another user's folder",
    make: (base) => made(Path.join(base, "run"), 0o755, someone),
    named: "run",
    needsRoot: true
  },
  {
    title: "below another user's folder",
    make: (base) => made(Path.join(made(Path.join(base, "run"), 0o755, someone), "mine"), 0o700),
    named: "run",
    needsRoot: true
  },
  {
    title: "in another user's folder where a sticky one has it",
    make: (base) => made(Path.join(made(Path.join(base, "tmp"), 0o1777), "run"), 0o700, someone),
    named: "tmp/run",
    needsRoot: true
  },
  {
    title: "behind another user's link",
    make: (base) => {
      made(Path.join(base, "mine"), 0o700)
      const link = Path.join(made(Path.join(base, "tmp"), 0o1777), "run")
      Fs.symlinkSync("../mine", link)
      Fs.lchownSync(link, someone, someone)
      return link
    },
    named: "tmp/run",
    needsRoot: true
  },
  {
    title: "behind a link of our own to a folder that all may write to",
    make: (base) => {
      made(Path.join(base, "open"), 0o777)
      const link = Path.join(base, "run")
      Fs.symlinkSync("open", link)
      return link
    },
    named: "open",
    needsRoot: false
  }
]
