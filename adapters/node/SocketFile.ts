/** The file of a Unix socket that this process bound: identified by its inode, since another process may replace it. */
import * as Fs from "node:fs"
import { Effect } from "effect"

export const isOwnFile = (path: string, inode: number): boolean =>
  Fs.lstatSync(path, { throwIfNoEntry: false })?.ino === inode

export const removeOwnFile = (path: string, inode: number): void => {
  if (isOwnFile(path, inode)) Fs.rmSync(path, { force: true })
}

/**
 * Returns once the file has another name or none: then no client finds the socket any more. The kernel reports it
 * (inotify(7)), except where a folder on the way is moved as a whole.
 */
export const untilRemoved = (path: string, inode: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    let watcher: Fs.FSWatcher | undefined
    const check = () => {
      if (!isOwnFile(path, inode)) resume(Effect.void)
    }
    try {
      watcher = Fs.watch(path, { persistent: false }, check)
      watcher.on("error", check)
      check()
    } catch (error) {
      if (!isOwnFile(path, inode)) return resume(Effect.void)
      const why = error instanceof Error ? error.message : String(error)
      resume(
        Effect.andThen(
          Effect.logWarning(`${path} can't be watched, and is lost if another process removes it: ${why}`),
          Effect.never
        )
      )
    }
    return Effect.sync(() => watcher?.close())
  })
