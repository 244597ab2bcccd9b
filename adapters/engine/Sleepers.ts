/** All containers that sleep, and what is to be done for them now. Their steps are in `Sleeper`. No input or output. */
import type { Idle } from "../../src/mapper/model/Labels.ts"
import type { Connections } from "../../src/protocol/Driver.ts"
import type { Container } from "./Engine.ts"
import type { Rest, Sleeper } from "./Sleeper.ts"
import * as Step from "./Sleeper.ts"

/** One of them. */
export interface SleepingContainer extends Sleeper {
  readonly id: string
  readonly name: string
  /** The keys of its groups, in order, each with the port of the container. */
  readonly ports: ReadonlyMap<string, number>
  /** The groups whose ports take connections since it runs. */
  readonly open: ReadonlySet<string>
}

/** What the last look at the Engine and the driver says about a container. */
export interface Seen {
  readonly container: Container
  readonly rest: Rest
  /** The groups that have traffic. */
  readonly serving: ReadonlySet<string>
}

/** Containers that we stopped, each with its run at that time (`Engine.runOf`). */
export type Slept = ReadonlyMap<string, string>

export class Sleepers {
  readonly #all = new Map<string, SleepingContainer>()
  readonly #slept: Map<string, string>
  readonly #ended = new Set<string>()
  readonly #dropped = new Set<string>()
  #unsaved = false

  constructor(slept: Slept) {
    this.#slept = new Map(slept)
  }

  get all(): ReadonlyArray<SleepingContainer> {
    return [...this.#all.values()]
  }

  get(id: string): SleepingContainer | undefined {
    return this.#all.get(id)
  }

  get slept(): Slept {
    return this.#slept
  }

  /** Whether it may be woken, although it does not run. */
  mayWake({ id, neverRan }: Container): boolean {
    return neverRan === true || this.#slept.has(id) || this.#all.has(id)
  }

  see({ container, rest, serving }: Seen, nowMillis: number): SleepingContainer | undefined {
    const { id, name } = container
    const before = this.#all.get(id)
    const sight = { container, rest, isOurs: this.#slept.has(id), serves: serving.size > 0 }
    const now = Step.seen(before, sight, nowMillis)
    if (now === undefined) this.#drop(id)
    else {
      const open = before?.open ?? serving
      this.#put({ ...now, id, name, ports: before?.ports ?? new Map(), open }, before)
    }
    return this.#all.get(id)
  }

  /** The groups that it has now. */
  setPorts(id: string, ports: ReadonlyMap<string, number>): void {
    const sleeper = this.#all.get(id)
    if (sleeper !== undefined) this.#put({ ...sleeper, ports }, sleeper)
  }

  /**
   * Drops all but these, and what is recorded of containers that are gone. Returns whether one that is still there was
   * dropped since the last call: its labels could not be read, or it ended, perhaps stopped by the process before us.
   */
  keep(seen: ReadonlySet<string>, existing: ReadonlySet<string>): boolean {
    for (const id of this.#slept.keys()) if (!existing.has(id)) this.forget(id)
    for (const id of this.#all.keys()) if (!seen.has(id) && this.#all.delete(id)) this.#dropped.add(id)
    const dropped = [...this.#dropped]
    this.#dropped.clear()
    return dropped.some((id) => existing.has(id))
  }

  heard(id: string, action: string, nowMillis: number): void {
    if (action === "start" && !this.#all.has(id)) this.forget(id)
    this.#step(id, (sleeper) => Step.heard(sleeper, action, nowMillis))
  }

  wanted(id: string, nowMillis: number): void {
    this.#step(id, (sleeper) => Step.wanted(sleeper, nowMillis))
  }

  starting(id: string, nowMillis: number): void {
    this.#step(id, (sleeper) => Step.starting(sleeper, nowMillis))
  }

  started(id: string, why: string | undefined, nowMillis: number): void {
    this.#step(id, (sleeper) => Step.started(sleeper, why, nowMillis))
  }

  /** The port of a group takes connections. */
  opened(id: string, key: string, nowMillis: number): void {
    const sleeper = this.#all.get(id)
    if (sleeper === undefined || !this.isClosed(id, key)) return
    const open = new Set([...sleeper.open, key])
    const isAwake = [...sleeper.ports.keys()].every((each) => open.has(each))
    this.#put({ ...(isAwake ? Step.opened(sleeper, nowMillis) : sleeper), ...named(sleeper), open }, sleeper)
    // From now on only a person ends it.
    if (isAwake) this.forget(id)
  }

  /** Whether it runs, and the port of this group is not known to take connections. */
  isClosed(id: string, key: string): boolean {
    const sleeper = this.#all.get(id)
    const runs = sleeper?.phase === "waking" || sleeper?.phase === "awake"
    return runs && !sleeper.open.has(key)
  }

  late(id: string): void {
    this.#step(id, (sleeper) => {
      const ports = [...sleeper.ports].flatMap(([key, port]) => (sleeper.open.has(key) ? [] : [port]))
      return Step.late(
        sleeper,
        `it runs, and port ${ports.join(", ")} takes no connections ${sleeper.rest.timeoutMillis / 1000} s after its start`
      )
    })
  }

  looked(id: string, connections: Connections | undefined, nowMillis: number): void {
    this.#step(id, (sleeper) => Step.looked(sleeper, connections, nowMillis))
    if (this.#all.get(id)?.phase === "awake") this.forget(id)
  }

  stays(id: string, why: string, nowMillis: number): void {
    this.#step(id, (sleeper) => Step.stays(sleeper, why, nowMillis))
  }

  stopped(id: string, nowMillis: number): void {
    this.#step(id, (sleeper) => Step.stopped(sleeper, nowMillis))
  }

  /** Takes over what another process recorded of containers that this one knows nothing of. */
  learn(slept: Slept): void {
    for (const [id, run] of slept) if (!this.#slept.has(id) && !this.#all.has(id)) this.sleepsAfter(id, run)
  }

  /** We are about to stop it, or it ended while we woke it: it is asleep after this run. */
  sleepsAfter(id: string, run: string): void {
    this.#slept.set(id, run)
    this.#unsaved = true
  }

  /** The containers that ended while we woke them, since the last call. */
  takeEnded(): ReadonlyArray<string> {
    const ended = [...this.#ended]
    this.#ended.clear()
    return ended
  }

  /** It was not stopped, or was started since. */
  forget(id: string): void {
    if (this.#slept.delete(id)) this.#unsaved = true
  }

  /** Whether `slept` changed since the last call. */
  takeUnsaved(): boolean {
    const unsaved = this.#unsaved
    this.#unsaved = false
    return unsaved
  }

  /** Why a group of it gets no traffic, if it does not. `fellows` share its port. */
  idleOf(
    id: string,
    key: string,
    fellows: ReadonlyArray<SleepingContainer>,
    nowMillis: number
  ): Idle | undefined {
    const sleeper = this.#all.get(id)
    switch (sleeper?.phase) {
      case undefined:
        return undefined
      case "awake":
      case "waking":
        return sleeper.open.has(key) ? undefined : "waking"
      case "starting":
        return "waking"
      case "asleep":
        return [sleeper, ...fellows].every((each) => Step.isBackingOff(each, nowMillis)) ? "failed" : "asleep"
      default:
        return "asleep"
    }
  }

  #step(id: string, step: (sleeper: SleepingContainer) => Sleeper): void {
    const sleeper = this.#all.get(id)
    if (sleeper !== undefined) this.#put({ ...step(sleeper), ...named(sleeper) }, sleeper)
  }

  /** A container that begins to run has no open ports yet. */
  #put(now: SleepingContainer, before: SleepingContainer | undefined): void {
    const begins = now.phase === "waking" && before !== undefined && before.phase !== "waking"
    const ends = now.phase === "asleep"
    if (ends && before?.phase === "waking") this.#ended.add(now.id)
    this.#all.set(now.id, begins || ends ? { ...now, open: new Set() } : now)
  }

  #drop(id: string): void {
    if (this.#all.delete(id)) this.#dropped.add(id)
    this.forget(id)
  }
}

/** What the steps of `Sleeper` don't know. */
const named = ({ id, name, ports, open }: SleepingContainer) => ({ id, name, ports, open })
