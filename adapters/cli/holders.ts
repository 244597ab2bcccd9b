/**
 * Which process has a socket or a lock, as far as `/proc` shows it: not for other users' processes, nor for those
 * outside this container. Sources: proc_pid_fd(5), proc_locks(5), unix(7) on `/proc/net/unix`.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { lines, processOfSocket } from "../linux/sockets/SocketHolder.ts"
import { readText } from "../node/FileText.ts"
import { printable } from "./Table.ts"

/**
 * The process that listens on this Unix socket. The kernel lists a socket by the path it was bound to: ours are bound
 * beside their final path (`PluginSocket`), so if several listen in one folder we can't tell them apart.
 */
export const listenerOf = (socketPath: string): number | undefined => {
  const folder = Path.dirname(socketPath)
  const listening = lines("/proc/net/unix")
    .map((line) => line.trim().split(/\s+/))
    // __SO_ACCEPTCON: it listens.
    .flatMap(([, , , flags, , , inode, path = ""]) => (flags === "00010000" ? [{ inode, path }] : []))
  const named = listening.find(({ path }) => path === socketPath)
  const beside = listening.filter(
    ({ path }) => Path.dirname(path) === folder && /^\.\d+\.sock$/.test(Path.basename(path))
  )
  const inode = (named ?? (beside.length === 1 ? beside[0] : undefined))?.inode
  return processOfSocket(inode)
}

/** The process that has a lock on one of these files. */
export const lockerOf = (files: ReadonlyArray<string>): number | undefined => {
  const locked = new Set(files.flatMap(fileId))
  const found = lines("/proc/locks")
    .map((line) => line.trim().split(/\s+/))
    .find(([, , , , , file]) => file !== undefined && locked.has(file))
  // A process outside this container has no id here.
  return found === undefined ? undefined : Number(found[4])
}

/** As `/proc/locks` names a file: the device's two halves in hexadecimal, and the inode. */
const fileId = (path: string): ReadonlyArray<string> => {
  const found = Fs.statSync(path, { throwIfNoEntry: false })
  if (found === undefined) return []
  const major = ((found.dev >>> 8) & 0xfff).toString(16).padStart(2, "0")
  const minor = ((found.dev & 0xff) | ((found.dev >>> 12) & 0xfff00)).toString(16).padStart(2, "0")
  return [`${major}:${minor}:${found.ino}`]
}

/** `process 1234`, or `another process` if the id is unknown. */
export const processText = (pid: number | undefined): string =>
  pid === undefined || !(pid > 0) ? "another process" : `process ${pid}${commandOf(pid)}`

/** Its command line: for Node, the kernel's name of the process is that of a thread. */
const commandOf = (pid: number): string => {
  const [program = "", ...rest] = readText(`/proc/${pid}/cmdline`)?.split("\0") ?? []
  const text = printable([Path.basename(program), ...rest].join(" ").trim())
  if (text === "") return ""
  return ` (${text.length > maxCommand ? `${text.slice(0, maxCommand)}…` : text})`
}

const maxCommand = 60
