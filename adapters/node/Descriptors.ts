/** The descriptors of this process: proc(5). */
import { readdirSync, readFileSync, statSync } from "node:fs"

/** The limit: the soft one, which Node raises to the hard one. A million if proc(5) can't be read. */
export const descriptorLimit = (): number => {
  try {
    return Number(/^Max open files +(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"))?.[1] ?? 1 << 20)
  } catch {
    return 1 << 20
  }
}

/** How many are open. From Linux 6.2 on the kernel reports the number; before, we count the folder's entries. */
export const descriptorsInUse = (): number => {
  try {
    // Reading the folder itself takes one.
    return statSync("/proc/self/fd").size || readdirSync("/proc/self/fd").length - 1
  } catch {
    return 0
  }
}

/** How many are kept back for what must work during a flood: calls, the ports that they reserve, the store. */
export const controlReserve = (limit: number): number => Math.min(limit >> 2, 4096)
