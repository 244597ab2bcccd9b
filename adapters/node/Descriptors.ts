/** The descriptors of this process: proc(5). */
import { readdirSync, readFileSync, statSync } from "node:fs"

/** How many it may have: the soft limit, which Node raises to the hard one. A million where proc(5) can't be read. */
export const descriptorLimit = (): number => {
  try {
    return Number(/^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1] ?? 1 << 20)
  } catch {
    return 1 << 20
  }
}

/** How many it has. From Linux 6.2 on the kernel tells the number; before, the folder is read. */
export const descriptorsInUse = (): number => {
  try {
    // One is open while the folder is read.
    return statSync("/proc/self/fd").size || readdirSync("/proc/self/fd").length - 1
  } catch {
    return 0
  }
}

/** How many are kept for what has to work while clients flood a port: calls, the ports that they reserve, the record. */
export const controlReserve = (limit: number): number => Math.min(limit >> 2, 4096)
