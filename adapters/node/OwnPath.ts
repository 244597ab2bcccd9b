/**
 * Whether a path stays what it is: whoever may rename or replace a part of it decides whom a socket's clients speak to, and
 * what state is believed at the next start.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

/**
 * What of the path to a folder a user other than root and our own could rename or replace, and the rule; `undefined` where
 * nothing. A link counts itself and is followed. What is not there yet is passed over: whoever makes it asks again.
 * Throws what the system refuses.
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
 * Whom everyone seems to be who has no name in this user namespace, the host's root among them, to whom `/` and `/tmp`
 * belong; `undefined` where everyone has one. See user_namespaces(7).
 */
const unmappedUser = (): number | undefined => {
  try {
    const map = Fs.readFileSync("/proc/self/uid_map", "utf8")
    if (/^\s*0\s+0\s+4294967295\s*$/.test(map)) return undefined
    return Number(Fs.readFileSync("/proc/sys/kernel/overflowuid", "utf8"))
  } catch {
    return undefined
  }
}
