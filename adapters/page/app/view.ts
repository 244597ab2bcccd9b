/** What the reader looks at, kept in the hash of the URL. */
import { signal } from "@preact/signals"
import { formatHash, parseHash, plainView, type View } from "./hash.ts"

export const view = signal(plainView)

/** Opening another port is a step that the browser's Back undoes; what one types or sorts is not. */
export const show = (change: Partial<View>): void => {
  const before = view.value
  const next = { ...before, ...change }
  view.value = next
  clearTimeout(pending)
  if (next.chosen !== before.chosen || next.pane !== before.pane) {
    history.replaceState(null, "", formatHash(before))
    history.pushState(null, "", formatHash(next))
  } else pending = setTimeout(() => history.replaceState(null, "", formatHash(view.value)), typingMillis)
}

/** Browsers refuse to write the URL anew for each key that is pressed. */
const typingMillis = 200

let pending: ReturnType<typeof setTimeout> | undefined

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
    clearTimeout(pending)
    view.value = parseHash(location.hash)
  }
  read()
  addEventListener("hashchange", read)
  addEventListener("popstate", read)
}
