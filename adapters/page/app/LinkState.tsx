/** Whether what is shown is of now, and what to do if it is not. */
import { hereMillis } from "./clock.ts"
import { connect, heardAt, link, model } from "./connection.ts"
import { age } from "./format.ts"

/** A word in the header. */
export const LinkWord = () => {
  const { phase } = link.value
  const words = { connecting: "Connecting", live: "Live", hidden: "Paused", lost: "Not live" }
  return (
    <span class="link" data-phase={phase} role="status">
      {words[phase]}
    </span>
  )
}

export const LostNotice = () => {
  const now = link.value
  if (now.phase !== "lost") return null
  const seconds = Math.max(0, Math.ceil((now.retryAt - hereMillis.value) / 1000))
  const said =
    now.reason === undefined
      ? "No connection to the plugin. Does portmapper serve --page run, and is the tunnel to it open?"
      : `The plugin refused: ${now.reason}.`
  const old = age(hereMillis.value - heardAt.value)
  return (
    <section class="notice" aria-label="Connection">
      <p>
        <span role="alert">{said}</span> {model.value === undefined ? "" : `What you see is ${old} old. `}
        {seconds > 0 ? `Trying again in ${age(seconds * 1000)}.` : "Trying again …"}
      </p>
      <button type="button" onClick={connect}>
        Try now
      </button>
    </section>
  )
}

/** Before anything is known. */
export const Start = () => (
  <main class="start">
    <h1>portmapper</h1>
    {link.value.phase === "lost" ? <LostNotice /> : <p class="quiet">Connecting to the plugin …</p>}
  </main>
)
