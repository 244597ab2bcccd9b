/** The whole page. */
import { computed } from "@preact/signals"
import { useEffect } from "preact/hooks"
import { model } from "./connection.ts"
import { Events } from "./Events.tsx"
import { count } from "./format.ts"
import { Header } from "./Header.tsx"
import { Host } from "./Host.tsx"
import { LostNotice, Start } from "./LinkState.tsx"
import { Port } from "./Port.tsx"
import { Ports } from "./Ports.tsx"
import { closePort, focusOn, show, view } from "./view.ts"

const chosenRow = computed(() => {
  const { chosen } = view.value
  if (chosen === undefined) return undefined
  return model.value?.rows.values().find(({ key }) => key === chosen)
})

export const App = () => {
  useEffect(() => {
    addEventListener("keydown", onKey)
    return () => removeEventListener("keydown", onKey)
  }, [])
  const now = model.value
  const { chosen, pane } = view.value
  useTitle(now === undefined ? undefined : { host: now.plugin.host, problems: now.host.problems })
  if (now === undefined) return <Start />
  return (
    <>
      <Header model={now} />
      <LostNotice />
      <main data-pane={pane} data-port={chosen !== undefined}>
        <Ports model={now} />
        {chosen === undefined ? null : <Port model={now} row={chosenRow.value} name={chosen} />}
        <div class="rail">
          <Host model={now} />
          <Events model={now} />
        </div>
      </main>
    </>
  )
}

/** `/` goes to the filter, Escape closes the port. */
const onKey = (event: KeyboardEvent): void => {
  const isTyping = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return
  if (event.key === "/" && !isTyping) {
    event.preventDefault()
    if (!focusOn("filter")) {
      show({ pane: "ports", chosen: undefined })
      requestAnimationFrame(() => focusOn("filter"))
    }
  } else if (event.key === "Escape" && view.value.chosen !== undefined && !isTyping) closePort()
}

const useTitle = (shown: { readonly host: string; readonly problems: number } | undefined): void => {
  useEffect(() => {
    if (shown === undefined) return
    const problems = shown.problems === 0 ? "" : `${count(shown.problems)} wrong · `
    document.title = `${problems}${shown.host} · portmapper`
  }, [shown?.host, shown?.problems])
}
