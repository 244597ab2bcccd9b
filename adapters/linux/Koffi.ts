/**
 * The only file that imports koffi, loaded at first use. `Libc.ts` makes calls of it that take byte arrays and answer
 * errors in words; `Syscalls.ts` those of the relay's threads, numbers alone. It is apart from both so that a thread that
 * has to start fast loads nothing else.
 */
import { createRequire } from "node:module"
import type Koffi from "koffi"

export const koffi = (): typeof Koffi => {
  loaded ??= createRequire(import.meta.url)("koffi") as typeof Koffi
  return loaded
}

let loaded: typeof Koffi | undefined
