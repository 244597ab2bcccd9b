/**
 * The network namespace of an attachment, in a label of its ports: an attachment whose namespace is gone has ended
 * without a `DEL`. Certain, or unknown: where this process does not see what the runtime sees, nothing is gone.
 */
import * as Fs from "node:fs"
import { dirname } from "node:path"

export const namespaceLabel = "portmapper.cni-netns"

/** `4026532281 /run/netns/web`, or nothing where the path shows this process no namespace. */
export const namespaceLabels = (path: string): Readonly<Record<string, string>> => {
  const inode = inodeAt(path)
  return typeof inode === "number" && isSeenAlike(path) ? { [namespaceLabel]: `${inode} ${path}` } : {}
}

/** Whether there is another namespace at the path by now, or none, though there is still the folder. */
export const isGone = (label: string): boolean => {
  const [, inode, path = ""] = /^(\d+) (\/.*)$/s.exec(label) ?? []
  if (inode === undefined || !isSeenAlike(path)) return false
  const now = inodeAt(path)
  if (now === "none") return path.startsWith("/proc/") || Fs.existsSync(dirname(path))
  return now !== "unknown" && `${now}` !== inode
}

/** The file system of namespaces; see linux/magic.h. */
const nsfs = 0x6e736673

const inodeAt = (path: string): number | "none" | "unknown" => {
  try {
    return Fs.statfsSync(path).type === nsfs ? Fs.statSync(path).ino : "unknown"
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException
    return ["ENOENT", "ENOTDIR", "ESRCH"].includes(code) ? "none" : "unknown"
  }
}

/** The process ids of a path in `/proc` are the runtime's, so only those of the machine itself count. */
const isSeenAlike = (path: string): boolean =>
  !path.startsWith("/proc/") || Fs.readlinkSync("/proc/self/ns/pid") === machinePids

/** `PROC_PID_INIT_INO`; see linux/proc_ns.h. */
const machinePids = `pid:[${0xeffffffc}]`
