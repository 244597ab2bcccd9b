/** Texts that others wrote, times, and commands to copy. */
import { useSignal } from "@preact/signals"
import { nowMillis } from "./clock.ts"
import { age, exactTime, time, visible } from "./format.ts"

/** A name or an error as plain text, isolated: its direction changes nothing around it. */
export const Said = ({ text }: { readonly text: string }) => <bdi title={visible(text)}>{visible(text)}</bdi>

/** Its name; the id that follows it is under the pointer. */
export const Container = ({ name }: { readonly name: string }) => (
  <bdi title={visible(name)}>{visible(name.replace(/\/[0-9a-f]{12}$/, ""))}</bdi>
)

/** How long ago; the exact time under the pointer and for machines. */
export const Age = ({ at }: { readonly at: number }) => (
  <time dateTime={new Date(at).toISOString()} title={exactTime(at)}>
    {age(nowMillis.value - at)}
  </time>
)

export const Time = ({ at }: { readonly at: number }) => (
  <time dateTime={new Date(at).toISOString()} title={exactTime(at)}>
    {time(at, nowMillis.value)}
  </time>
)

/** A command, never run from here. */
export const Command = ({ text, label }: { readonly text: string; readonly label: string }) => {
  const outcome = useSignal("")
  const copy = async () => {
    outcome.value = (await copied(text)) ? "Copied" : "Select it and copy"
    setTimeout(() => {
      outcome.value = ""
    }, 2000)
  }
  return (
    <div class="command">
      <code>
        <bdi>{visible(text)}</bdi>
      </code>
      <button type="button" onClick={() => void copy()} aria-label={`Copy ${label}`}>
        <span aria-live="polite">{outcome.value || "Copy"}</span>
      </button>
    </div>
  )
}

/** Browsers offer their clipboard to pages from this machine or by TLS; elsewhere the older way may do. */
const copied = async (text: string): Promise<boolean> => {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    const area = document.createElement("textarea")
    area.value = text
    document.body.append(area)
    area.select()
    const isDone = document.execCommand("copy")
    area.remove()
    return isDone
  }
}
