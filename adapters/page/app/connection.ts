/**
 * The stream of the plugin's events: one as long as the page is visible, none while it is hidden, a new one when the
 * last was lost.
 */
import { type Signal, signal } from "@preact/signals"
import type { PageChange, PageState } from "../../../src/page/PageState.ts"
import { applyChange, fromState, type Model } from "./model.ts"

export type Link =
  | { readonly phase: "connecting" | "live" | "hidden" }
  | {
      readonly phase: "lost"
      /** What the plugin says to that, if it answers at all. */
      readonly reason: string | undefined
      /** When it is tried again, by this browser's clock. */
      readonly retryAt: number
    }

export const model: Signal<Model | undefined> = signal(undefined)
export const link: Signal<Link> = signal<Link>({ phase: "connecting" })
/** When the last event came, by this browser's clock. */
export const heardAt: Signal<number> = signal(Date.now())
/** How far the plugin's clock is ahead of this browser's, in milliseconds. */
export const ahead: Signal<number> = signal(0)

let source: EventSource | undefined
let timer: ReturnType<typeof setTimeout> | undefined
let failures = 0

/** Connects, and stays connected while somebody may look. */
export const stayConnected = (): void => {
  document.addEventListener("visibilitychange", follow)
  addEventListener("online", follow)
  addEventListener("pagehide", disconnect)
  // From the browser's cache of pages that one goes back to.
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) follow()
  })
  follow()
}

/** Tries at once. */
export const connect = (): void => {
  disconnect()
  if (link.value.phase === "hidden" || model.value === undefined) link.value = { phase: "connecting" }
  const opened = new EventSource("api/events")
  source = opened
  opened.addEventListener("state", ({ data }) => {
    const before = model.value
    const state = JSON.parse(data) as PageState
    // It may be of a look some seconds ago; a change is sent at once.
    if (before === undefined) ahead.value = state.at - Date.now()
    heard(fromState(state, before))
  })
  opened.addEventListener("change", ({ data }) => {
    const change = JSON.parse(data) as PageChange
    ahead.value = change.at - Date.now()
    if (model.value !== undefined) heard(applyChange(model.value, change))
  })
  opened.addEventListener("error", () => lose(opened))
  expect()
}

const follow = (): void => {
  if (document.visibilityState === "visible") {
    failures = 0
    connect()
  } else {
    disconnect()
    link.value = { phase: "hidden" }
  }
}

const disconnect = (): void => {
  clearTimeout(timer)
  source?.close()
  source = undefined
}

const heard = (next: Model): void => {
  failures = 0
  heardAt.value = Date.now()
  model.value = next
  if (link.value.phase !== "live") link.value = { phase: "live" }
  expect()
}

/** Nothing at all for this long, and the connection counts as lost: the plugin sends a change every ten seconds at least. */
const silenceMillis = 40_000

const expect = (): void => {
  clearTimeout(timer)
  const opened = source
  timer = setTimeout(() => {
    if (opened !== undefined) lose(opened)
  }, silenceMillis)
}

const shortestMillis = 500
const longestMillis = 5_000

/** Pages do not come back all in the same moment. */
const backOff = (): number =>
  Math.min(shortestMillis * 2 ** failures, longestMillis) * (0.75 + Math.random() / 2)

const lose = (lost: EventSource): void => {
  if (lost !== source) return
  failures++
  // At first the browser connects again by itself, and asks only for what it missed: after a takeover nothing is seen.
  if (failures === 1 && lost.readyState === EventSource.CONNECTING) return
  const isRefused = lost.readyState === EventSource.CLOSED
  disconnect()
  const millis = backOff()
  const retryAt = Date.now() + millis
  link.value = { phase: "lost", reason: undefined, retryAt }
  timer = setTimeout(connect, millis)
  if (isRefused) void explain(retryAt)
}

/** An event source does not say why it was refused; the same request does. */
const explain = async (retryAt: number): Promise<void> => {
  const answer = await fetch("api/events").catch(() => undefined)
  if (answer === undefined) return
  const reason = answer.ok ? undefined : await reasonOf(answer)
  if (answer.ok) void answer.body?.cancel()
  const now = link.value
  if (reason !== undefined && now.phase === "lost" && now.retryAt === retryAt) link.value = { ...now, reason }
}

const reasonOf = async (answer: Response): Promise<string> => {
  const body: unknown = await answer.json().catch(() => undefined)
  const isError = typeof body === "object" && body !== null && "Err" in body && typeof body.Err === "string"
  return isError ? (body.Err as string) : `HTTP status ${answer.status}`
}
