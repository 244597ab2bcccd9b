/**
 * The only file that imports koffi; it loads koffi at first use. `Libc.ts` wraps calls that take byte arrays and
 * return errors as text; `Syscalls.ts` wraps those of the relay's threads, which take and return numbers only. The
 * import has its own file so that a thread that must start fast loads nothing else.
 */
import { createRequire } from "node:module"
import type Koffi from "koffi"

/** `from`: the URL of the module beside which it is found. */
export const koffi = (from: string = import.meta.url): typeof Koffi => {
  loaded ??= createRequire(from)("koffi") as typeof Koffi
  return loaded
}

let loaded: typeof Koffi | undefined
