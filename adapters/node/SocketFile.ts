/** The file of a Unix socket that this process bound: identified by its inode, since another process may replace it. */
import * as Fs from "node:fs"
import { Effect } from "effect"
import { attempt } from "./FileText.ts"

export const isOwnFile = (path: string, inode: number): boolean =>
  attempt(() => Fs.lstatSync(path).ino) === inode

export const removeOwnFile = (path: string, inode: number): void => {
  if (isOwnFile(path, inode)) Fs.rmSync(path, { force: true })
}

/**
 * How often a socket's file is looked for. Not by inotify(7): closing its descriptor takes the kernel 10 ms and more,
 * which a killed process would spend between the release of its lock and that of its ports.
 */
const checkInterval = "1 second"

/** Returns once the file has another name or none: then no client finds the socket any more. */
export const untilRemoved = (path: string, inode: number): Effect.Effect<void> =>
  Effect.suspend(() =>
    isOwnFile(path, inode) ? Effect.delay(untilRemoved(path, inode), checkInterval) : Effect.void
  )
