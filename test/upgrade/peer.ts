/** The other side of a handover: a process that sends and prints messages as the test says (`speaker.ts`). */
import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { createInterface } from "node:readline"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { Timeouts } from "../../adapters/upgrade/Predecessor.ts"
import { temporaryFolder } from "../support/folders.ts"

const script = Path.join(import.meta.dirname, "../support/speaker.ts")

export const hello = '{"_tag":"Hello","version":2}'

export const timeouts: Timeouts = { silence: "30 seconds", ready: "30 seconds", gone: "30 seconds" }

export const nothing = { sockets: [], listeners: [], connections: [], lock: undefined }

export const handoverPath = Effect.map(temporaryFolder, (folder) => Path.join(folder, "handover.sock"))

/** A file of this process, and the number of further descriptors for it. */
export const openedFile = Effect.fnUntraced(function* (path: string) {
  const file = `${path}.file`
  const fd = yield* Effect.acquireRelease(
    Effect.sync(() => Fs.openSync(file, "w")),
    (opened) => Effect.sync(() => Fs.closeSync(opened))
  )
  const isOpen = (name: string) => {
    try {
      return Fs.readlinkSync(`/proc/self/fd/${name}`) === file
    } catch {
      return false
    }
  }
  return { fd, copies: () => Fs.readdirSync("/proc/self/fd").filter(isOpen).length - 1 }
})

/** Offers its handover at the path, once it listens. */
export const listeningAt = (path: string) =>
  Effect.tap(speaker("listen", path), ({ hears }) =>
    Effect.map(hears, (line) => assert.strictEqual(line, "listening"))
  )

/** Asks for the handover at the path, once it is connected. */
export const connectedTo = (path: string, as: { readonly uid?: number } = {}) =>
  Effect.tap(speaker("connect", path, as), ({ hears }) =>
    Effect.map(hears, (line) => assert.strictEqual(line, "connected"))
  )

export const speaker = (side: "connect" | "listen", path: string, as: { readonly uid?: number } = {}) =>
  Effect.gen(function* () {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [script, side, path], { stdio: "pipe", ...as })),
      (running) => Effect.sync(() => void running.kill("SIGKILL"))
    )
    let complaint = ""
    child.stderr.on("data", (chunk) => {
      complaint += chunk
    })
    const ended = new Promise<string>((resolve) => child.once("close", (_, signal) => resolve(signal ?? "")))
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    return {
      pid: child.pid,
      /** The next line, without those that only report that the other side is at work. */
      hears: Effect.promise(async () => {
        for (;;) {
          const line = String((await lines.next()).value)
          if (line !== '0 {"_tag":"Busy"}') return line
        }
      }),
      send: (text: string) => Effect.sync(() => void child.stdin.write(`${text}\n`)),
      kill: Effect.sync(() => void child.kill("SIGKILL")),
      end: Effect.promise(() => ended),
      complaint: Effect.promise(async () => {
        await ended
        return complaint
      })
    }
  })
