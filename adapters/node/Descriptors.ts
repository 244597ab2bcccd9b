/** The descriptors of this process: proc(5). */
import { readdirSync, statSync } from "node:fs"
import { attempt, readText } from "./FileText.ts"

/** The limit: the soft one, which Node raises to the hard one. A million if proc(5) can't be read. */
export const descriptorLimit = (): number =>
  Number(/^Max open files +(\d+)/m.exec(readText("/proc/self/limits") ?? "")?.[1] ?? 1 << 20)

/** How many are open. From Linux 6.2 on the kernel reports the number; before, we count the folder's entries. */
export const descriptorsInUse = (): number =>
  // Reading the folder itself takes one.
  attempt(() => statSync("/proc/self/fd").size || readdirSync("/proc/self/fd").length - 1) ?? 0

/** How many are kept back for what must work during a flood: calls, the ports that they reserve, the store. */
export const controlReserve = (limit: number): number => Math.min(limit >> 2, 4096)
