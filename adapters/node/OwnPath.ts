/**
 * Whether another user could replace a part of a path: such a user would decide which process a socket's clients
 * reach, and which state the next start loads.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { readText } from "./FileText.ts"

/**
 * The part of a folder's path that a user other than root and our own could rename or replace, and the rule;
 * `undefined` if there is none. A link is checked and followed. The check ends at the first part that does not exist;
 * the code that creates it checks again. Throws system errors.
 */
export const replaceablePart = (folder: string): string | undefined => {
  const user = process.geteuid?.() ?? 0
  const unmapped = unmappedUser()
  const left = [".", ...partsOf(Path.resolve(folder))]
  let at = "/"
  for (let looked = 0; left.length > 0; looked++) {
    const path = Path.join(at, left.shift() ?? "")
    const found = Fs.lstatSync(path, { throwIfNoEntry: false })
    if (found === undefined) return undefined
    const { uid, mode } = found
    const isLink = found.isSymbolicLink()
    const isOpen = !isLink && (mode & 0o022) !== 0 && (mode & sticky) === 0
    if (isOpen || (uid !== 0 && uid !== user && uid !== unmapped)) {
      const what = `${path} (owner ${uid}, mode ${(mode & 0o7777).toString(8)})`
      return `another user could replace what is in ${what}: it must belong to root or to user ${user}, and be writable by no one else or be sticky`
    }
    if (!isLink) {
      at = path
      continue
    }
    if (looked > mostParts) return `${path}: must not lead through more than ${mostParts} links and folders`
    const target = Fs.readlinkSync(path)
    if (Path.isAbsolute(target)) at = "/"
    left.unshift(...partsOf(target))
  }
  return undefined
}

const sticky = 0o1000

const mostParts = 200

const partsOf = (path: string): ReadonlyArray<string> => path.split("/").filter((part) => part !== "")

/**
 * The user id that stands for all users without an id in this user namespace. The host's root, who owns `/` and
 * `/tmp`, may be one of them. `undefined` if every user has an id. See user_namespaces(7).
 */
const unmappedUser = (): number | undefined => {
  const map = readText("/proc/self/uid_map")
  if (map === undefined || /^\s*0\s+0\s+4294967295\s*$/.test(map)) return undefined
  return Number(readText("/proc/sys/kernel/overflowuid"))
}
