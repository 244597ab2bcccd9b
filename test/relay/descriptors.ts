/** Uses up this process's descriptors, but for a few, and frees them again. */
import { readdirSync, readFileSync } from "node:fs"
import { koffi as load } from "../../adapters/linux/Koffi.ts"

export const withFewDescriptors = async (
  body: (leave: (free: number) => void) => Promise<void>
): Promise<void> => {
  const [soft, hard] =
    /open files +(\d+) +(\d+)/.exec(readFileSync("/proc/self/limits", "utf8"))?.slice(1).map(Number) ?? []
  const limit = (to = 0) => {
    if (setrlimit(RLIMIT_NOFILE, new BigUint64Array([to, hard ?? 0].map(BigInt))) !== 0)
      throw new Error(`the limit on descriptors can't be set to ${to}`)
  }
  try {
    await body((free) => limit(roomFor(free)))
  } finally {
    limit(soft)
  }
}

const RLIMIT_NOFILE = 7
const setrlimit: (resource: number, limits: BigUint64Array) => number = load()
  .load(null)
  .func("setrlimit", "int", ["int", "void *"])

/** The limit that leaves so many numbers unused: counts the free ones below it, whatever is used above. */
const roomFor = (free: number): number => {
  const used = new Set(readdirSync("/proc/self/fd").map(Number))
  let room = 0
  for (let left = free; left > 0; room++) if (!used.has(room)) left--
  return room
}
