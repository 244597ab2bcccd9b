/**
 * One container that sleeps: a client starts it, and it is stopped after a time without a connection. Each function is
 * a transition: it takes the state and an event, and returns the next state. Pure; `Sleepers` has the states of all
 * containers, and `SleepWorker` carries out what they require.
 */
import type { Connections } from "../../src/protocol/Driver.ts"
import type { Container } from "./Engine.ts"

/** What the labels ask for. */
export interface Rest {
  /** How long a client waits. */
  readonly timeoutMillis: number
  /** How many containers of a service a client wakes. */
  readonly count: number
  /** `undefined`: it is never stopped. */
  readonly sleepMillis: number | undefined
}

/**
 * `asleep`: it does not run, and a client starts it. `starting`: the Engine was asked to start it. `waking`: it runs,
 * and a port of it takes no connections yet. `closing`: it was unused for long enough, so it takes no new connections,
 * and is looked at once more. `stopping`: the Engine was asked to stop it.
 */
export type Phase = "asleep" | "starting" | "waking" | "awake" | "closing" | "stopping"

export interface Sleeper {
  readonly rest: Rest
  readonly phase: Phase
  /** When the phase began. All times are of a monotonic clock. */
  readonly sinceMillis: number
  /** When it was first seen to run. */
  readonly runsSinceMillis: number
  /** Attempts to wake it that failed since it was last awake, and the moment of the next one. */
  readonly failures: number
  readonly retryMillis: number
  /** Why it does not come up, for people. */
  readonly why: string | undefined
  /** When a client last had to wait for it. */
  readonly wantedMillis: number | undefined
  /** A person stopped it, or is about to. */
  readonly byHand: boolean
  /** When it was last known to be in use, and the last look at its connections. */
  readonly usedMillis: number
  readonly look: { readonly atMillis: number; readonly begun: number } | undefined
  /** Why it gets no new connections although it runs. */
  readonly unready: Container["unready"]
}

/** No container is stopped so soon after its start. */
const leastRunMillis = 60_000
/** How often a container is looked at within the time after which it is stopped. */
const looksPerSleep = 4
/** The pause after a failed attempt doubles with each, up to this. */
const backOffMillis = { first: 1_000, most: 60_000 }

/**
 * What is known of a container. `isOurs`: we stopped it, or were about to, and it was not started since. `serves`: its
 * ports have traffic.
 */
export interface Sight {
  readonly container: Pick<Container, "running" | "ended" | "neverRan" | "unready">
  readonly rest: Rest
  readonly isOurs: boolean
  readonly serves: boolean
}

/** `undefined` for a container that no client wakes: a person stopped it, or it ended by itself. */
export const seen = (before: Sleeper | undefined, sight: Sight, nowMillis: number): Sleeper | undefined => {
  const { unready } = sight.container
  const now = after(before, sight, nowMillis)
  const goesOn = before?.unready === "paused" && unready !== "paused"
  return now && { ...now, unready, ...(goesOn ? { usedMillis: nowMillis, look: undefined } : {}) }
}

const after = (before: Sleeper | undefined, sight: Sight, nowMillis: number): Sleeper | undefined => {
  const { container, rest, isOurs, serves } = sight
  const known = before && { ...before, rest }
  if (container.running) {
    // A kill found us about to stop it, or to wake it.
    if (known === undefined) return begin(rest, isOurs ? "closing" : serves ? "awake" : "waking", nowMillis)
    return known.phase === "asleep" || known.phase === "starting" ? runs(known, nowMillis) : known
  }
  // It is about to be restarted or removed.
  if (!container.ended && container.neverRan !== true) return known
  switch (known?.phase) {
    case undefined:
      return container.neverRan || isOurs ? begin(rest, "asleep", nowMillis) : undefined
    case "asleep":
      return known
    case "starting":
      return known.byHand ? undefined : known
    case "waking":
      return known.byHand ? undefined : failed(known, "it ended while it was woken", nowMillis)
    case "stopping":
      return stopped(known, nowMillis)
    case "closing":
      // A stop that we asked for before a kill.
      return isOurs ? entering(known, "asleep", nowMillis) : undefined
    default:
      return undefined
  }
}

/** A client waits for it. One that was about to be stopped stays. */
export const wanted = (sleeper: Sleeper, nowMillis: number): Sleeper => {
  const waited = { ...sleeper, wantedMillis: nowMillis }
  return sleeper.phase === "closing" ? used(waited, nowMillis) : waited
}

/** An event of the Engine: it was started, by whomever, or sent a signal that ends it. */
export const heard = (sleeper: Sleeper, action: string, nowMillis: number): Sleeper => {
  const { phase } = sleeper
  if (action === "start") {
    const begun = { ...sleeper, byHand: false }
    return phase === "asleep" || phase === "starting" ? runs(begun, nowMillis) : begun
  }
  // The signal is ours, or its event came after the end.
  if (action !== "stop" || phase === "stopping" || phase === "asleep") return sleeper
  return { ...sleeper, byHand: true }
}

/** The Engine's answer to a start; `why` if it refused. */
export const started = (sleeper: Sleeper, why: string | undefined, nowMillis: number): Sleeper => {
  if (sleeper.phase !== "starting") return sleeper
  return why === undefined ? runs(sleeper, nowMillis) : failed(sleeper, why, nowMillis)
}

/** Its ports take connections. */
export const opened = (sleeper: Sleeper, nowMillis: number): Sleeper =>
  sleeper.phase === "waking"
    ? { ...entering(sleeper, "awake", nowMillis), failures: 0, why: undefined, usedMillis: nowMillis }
    : sleeper

/** `what` takes no connections, and the time for it is over: it is still waited for, and clients are not. */
export const late = (sleeper: Sleeper, what: string): Sleeper =>
  sleeper.phase === "waking" ? { ...sleeper, why: what } : sleeper

/** Whether a port of it should take connections by now. */
export const isLate = ({ phase, sinceMillis, rest }: Sleeper, nowMillis: number): boolean =>
  phase === "waking" && nowMillis - sinceMillis >= rest.timeoutMillis

/** A look at its connections; `undefined` if they are unknown, as good as a connection. */
export const looked = (sleeper: Sleeper, use: Connections | undefined, nowMillis: number): Sleeper => {
  const { phase, look } = sleeper
  if (phase === "closing")
    // Its ports were taken from it: what began before that is open, or was served.
    return use?.open === 0 ? entering(sleeper, "stopping", nowMillis) : used(sleeper, nowMillis)
  if (!isUp(sleeper)) return sleeper
  const next = { ...sleeper, look: { atMillis: nowMillis, begun: use?.begun ?? 0 } }
  const isUsed = use === undefined || use.open > 0 || look === undefined || use.begun !== look.begun
  if (isUsed) return { ...next, usedMillis: nowMillis }
  return restMillis(next) <= nowMillis ? entering(next, "closing", nowMillis) : next
}

/** It could not be stopped, or its ports could not be taken from it: it goes on for another time. */
export const stays = (sleeper: Sleeper, why: string, nowMillis: number): Sleeper =>
  sleeper.phase === "closing" || sleeper.phase === "stopping" ? { ...used(sleeper, nowMillis), why } : sleeper

/** The Engine's answer to a stop. */
export const stopped = (sleeper: Sleeper, nowMillis: number): Sleeper =>
  sleeper.phase === "stopping" ? { ...entering(sleeper, "asleep", nowMillis), why: undefined } : sleeper

/** When to look at its connections next; `undefined`: not before something else happens. */
export const lookMillis = (sleeper: Sleeper): number | undefined => {
  const { rest, look, runsSinceMillis, unready } = sleeper
  // A person paused it, and is to find it so.
  if (rest.sleepMillis === undefined || !isUp(sleeper) || unready === "paused") return undefined
  if (look === undefined) return sleeper.sinceMillis
  // A look before this could not count.
  const firstMillis = runsSinceMillis + leastRunMillis - rest.sleepMillis
  return Math.max(look.atMillis + rest.sleepMillis / looksPerSleep, firstMillis)
}

/** The next moment at which something is due that no event announces, `nowMillis` or later. */
export const dueMillis = (sleeper: Sleeper, nowMillis: number): number => {
  const { phase, retryMillis, sinceMillis, rest, why } = sleeper
  const never = Number.POSITIVE_INFINITY
  if (phase === "asleep") return retryMillis > nowMillis ? retryMillis : never
  if (phase === "waking" && why === undefined) return sinceMillis + rest.timeoutMillis
  return lookMillis(sleeper) ?? never
}

/** Of the containers of one frontend, those to be started now: as few as the labels say, the least failed first. */
export const toStart = <S extends Sleeper>(
  fellows: ReadonlyArray<S>,
  nowMillis: number
): ReadonlyArray<S> => {
  const { rest } = fellows[0] ?? {}
  if (rest === undefined || !fellows.some((each) => isWanted(each, nowMillis))) return []
  const up = fellows.filter(({ phase, why, unready }) =>
    phase === "waking"
      ? why === undefined
      : phase === "starting" || (phase === "awake" && unready === undefined)
  )
  return fellows
    .filter(({ phase, retryMillis }) => phase === "asleep" && retryMillis <= nowMillis)
    .sort((a, b) => a.failures - b.failures)
    .slice(0, Math.max(0, rest.count - up.length))
}

/** The Engine is asked to start it. */
export const starting = (sleeper: Sleeper, nowMillis: number): Sleeper => ({
  ...entering(sleeper, "starting", nowMillis),
  byHand: false
})

/** Whether it waits for the next attempt: clients are refused at once until then. */
export const isBackingOff = ({ phase, retryMillis }: Sleeper, nowMillis: number): boolean =>
  phase === "asleep" && nowMillis < retryMillis

/** Whether the client that came last may still wait. */
const isWanted = ({ wantedMillis, rest }: Sleeper, nowMillis: number): boolean =>
  wantedMillis !== undefined && nowMillis - wantedMillis < rest.timeoutMillis

/** Whether it may be stopped: a port that never opens does not keep it awake. */
const isUp = ({ phase, why }: Sleeper): boolean =>
  phase === "awake" || (phase === "waking" && why !== undefined)

/** When it may be stopped if it stays unused. */
const restMillis = ({ rest, usedMillis, runsSinceMillis }: Sleeper): number =>
  Math.max(usedMillis + (rest.sleepMillis ?? 0), runsSinceMillis + leastRunMillis)

const begin = (rest: Rest, phase: Phase, nowMillis: number): Sleeper => ({
  rest,
  phase,
  sinceMillis: nowMillis,
  runsSinceMillis: nowMillis,
  failures: 0,
  retryMillis: nowMillis,
  why: undefined,
  wantedMillis: undefined,
  byHand: false,
  usedMillis: nowMillis,
  look: undefined,
  unready: undefined
})

const entering = (sleeper: Sleeper, phase: Phase, nowMillis: number): Sleeper => ({
  ...sleeper,
  phase,
  sinceMillis: nowMillis
})

const runs = (sleeper: Sleeper, nowMillis: number): Sleeper => ({
  ...entering(sleeper, "waking", nowMillis),
  runsSinceMillis: nowMillis,
  usedMillis: nowMillis,
  look: undefined,
  why: undefined
})

const used = (sleeper: Sleeper, nowMillis: number): Sleeper => ({
  ...entering(sleeper, "awake", nowMillis),
  usedMillis: nowMillis,
  look: undefined
})

const failed = (sleeper: Sleeper, why: string, nowMillis: number): Sleeper => {
  const failures = sleeper.failures + 1
  const pause = Math.min(backOffMillis.first * 2 ** (failures - 1), backOffMillis.most)
  const asleep = entering(sleeper, "asleep", nowMillis)
  // Who waited for it is refused.
  return { ...asleep, failures, retryMillis: nowMillis + pause, why, wantedMillis: undefined }
}
