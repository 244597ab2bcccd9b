/** A bar on stderr while many ports come or go; nothing where stderr is no terminal. */
import { Clock, Effect, type Scope } from "effect"

/** Fewer are done before a user could read it. */
const worthShowing = 50

const betweenDrawingsMillis = 80

/** Returns a function to call with the number of further items done. The bar disappears when the scope closes. */
export const progress = (
  what: string,
  total: number
): Effect.Effect<(more: number) => void, never, Scope.Scope> => {
  const { stderr } = process
  if (!stderr.isTTY || total < worthShowing || process.env["TERM"] === "dumb")
    return Effect.succeed(() => undefined)
  let done = 0
  let drawn = 0
  return Effect.acquireRelease(
    Effect.map(Clock.Clock, (clock) => (more: number) => {
      done += more
      const now = Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      if (now - drawn < betweenDrawingsMillis && done < total) return
      drawn = now
      stderr.write(`\r${barText(what, done, total, stderr.columns)}\u001b[K`)
    }),
    () => Effect.sync(() => void (drawn > 0 && stderr.write("\r\u001b[K")))
  )
}

/** `mapping 3412 of 10000 [======>      ] 34%`, shorter than `columns` so that it never wraps. */
export const barText = (what: string, done: number, total: number, columns: number): string => {
  const share = total === 0 ? 1 : Math.min(1, done / total)
  const head = `${what} ${`${done}`.padStart(`${total}`.length)} of ${total}`
  const tail = `${Math.floor(share * 100)}%`.padStart(5)
  const width = Math.min(40, columns - head.length - tail.length - 4)
  if (width < 5) return `${head}${tail}`.slice(0, Math.max(0, columns - 1))
  const filled = Math.round(share * width)
  const bar = `${"=".repeat(filled)}${filled < width ? ">" : ""}`.padEnd(width)
  return `${head} [${bar}]${tail}`
}
