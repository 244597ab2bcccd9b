/**
 * Takes this process's descriptors away, but for a few, and gives them back: by another process, since one that has none left
 * starts no other.
 */
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readFileSync } from "node:fs"
import { createInterface } from "node:readline"

export const withFewDescriptors = async (
  body: (leave: (free: number) => Promise<void>) => Promise<void>
): Promise<void> => {
  const limiter = spawn("sh", ["-c", script], { stdio: ["pipe", "pipe", "inherit"] })
  const lines = createInterface(limiter.stdout)
  const limit = async (soft: number) => {
    limiter.stdin.write(`${soft}\n`)
    await once(lines, "line")
  }
  const before = Number(/open files +(\d+)/.exec(readFileSync("/proc/self/limits", "utf8"))?.[1])
  try {
    await body((free) => limit(roomFor(free)))
  } finally {
    await limit(before)
    limiter.kill()
  }
}

const script = `while read soft; do prlimit --pid $PPID --nofile=$soft: && echo done; done`

/** The limit that leaves so many numbers unused: those below it that are free, whatever is used above. */
const roomFor = (free: number): number => {
  const used = new Set(readdirSync("/proc/self/fd").map(Number))
  let room = 0
  for (let left = free; left > 0; room++) if (!used.has(room)) left--
  return room
}
