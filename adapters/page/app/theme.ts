/** What the browser says about its reader's surroundings. */
import { type ReadonlySignal, signal } from "@preact/signals"

const matches = (query: string): ReadonlySignal<boolean> => {
  const list = matchMedia(query)
  const current = signal(list.matches)
  list.addEventListener("change", ({ matches: now }) => {
    current.value = now
  })
  return current
}

export const isDark = matches("(prefers-color-scheme: dark)")
