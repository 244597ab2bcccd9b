/** What the reader looks at, kept in the hash of the URL. */
import { signal } from "@preact/signals"
import { formatHash, parseHash, plainView, type View } from "./hash.ts"

export const view = signal(plainView)

/** Opening another port is a step that the browser's Back undoes; what one types or sorts is not. */
export const show = (change: Partial<View>): void => {
  const next = { ...view.value, ...change }
  const isStep = next.chosen !== view.value.chosen || next.pane !== view.value.pane
  view.value = next
  if (formatHash(next) === formatHash(parseHash(location.hash))) return
  history[isStep ? "pushState" : "replaceState"](null, "", formatHash(next))
}

/** False if it is not shown. */
export const focusOn = (id: string): boolean => {
  const element = document.getElementById(id)
  if (element?.checkVisibility() !== true) return false
  element.focus()
  return true
}

/** Leaves a port's own view, for the list. */
export const closePort = (): void => {
  show({ chosen: undefined })
  requestAnimationFrame(() => focusOn("ports"))
}

/** The address of a port's own view. */
export const portHref = (chosen: string): string => formatHash({ ...view.value, chosen })

export const followHash = (): void => {
  const read = () => {
    view.value = parseHash(location.hash)
  }
  read()
  addEventListener("hashchange", read)
  addEventListener("popstate", read)
}
