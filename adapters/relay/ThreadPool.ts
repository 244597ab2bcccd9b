/**
 * The relay's threads together: it starts one with the first route, more when all are busy, and restarts one that
 * died. Every thread serves each TCP route, so that its connections spread; one thread serves a UDP route and has
 * all its flows.
 */
import { Clock, Effect, type Scope } from "effect"
import type { RelayCount } from "../../src/relay/Relay.ts"
import { controlReserve, descriptorLimit, descriptorsInUse } from "../node/Descriptors.ts"
import { forgetThread } from "./LimitState.ts"
import { type CommonData, type Done, RelayThread } from "./RelayThread.ts"
import {
  budgetOf,
  budgetWords,
  counterOf,
  countersPerRoute,
  maxRoutes,
  portCount,
  type Serving,
  type Settings
} from "./ThreadMessages.ts"

/** A route with the thread that serves it, or without one if all do. */
export interface Assigned {
  readonly serving: Serving
  readonly thread: number | undefined
}

/** A route to stop: by its id, served by all threads or by one. */
export interface Stopped {
  readonly id: number
  readonly thread: number | undefined
  /** Its socket, if no other route is left on it. */
  readonly socket: number | undefined
}

/** How often descriptors were lacking: for connections, which were left waiting, and for UDP flows. */
export interface Refused {
  readonly tcp: number
  readonly udp: number
}

export type Counters = Pick<RelayCount, "connections" | "open" | "refused" | "bytesIn" | "bytesOut">

export interface ThreadsOptions {
  /** Whether the threads accept nothing before `resume`. */
  readonly paused: boolean
  readonly settings: Settings
  readonly maxThreads: number
  readonly graceMillis: number
  /** All routes to serve now; a new thread starts with them. */
  readonly routes: () => Iterable<Assigned>
  /** A client waits for a backend of this route, which may be closed by now. */
  readonly onWaits: (id: number) => void
  /** The name of a route in logs; `undefined` if it is no longer served. */
  readonly nameOf: (id: number) => string | undefined
}

const routesPerMessage = 500
/** The restart delay doubles with each death, up to this maximum. */
const maxBackoffMillis = 30_000
/** A thread counts as busy for this long after it reported so. */
const busyMillis = 1200
/** After a thread could not be added, none is added for this long. */
const noMoreMillis = 30_000

/** The log, and the clock. */
interface Surroundings extends Readonly<Record<"error" | "warning", (message: string) => void>> {
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number
}

interface Member {
  readonly index: number
  readonly thread: RelayThread
  restart: NodeJS.Timeout | undefined
  deaths: number
  begunMillis: number
  busySince: number
}

/** Starts nothing before the first route; its threads end with the scope. */
export const makeThreadPool = (options: ThreadsOptions): Effect.Effect<ThreadPool, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.all([Effect.context<never>(), Clock.Clock]), ([context, clock]) => {
      const fork = Effect.runForkWith(context)
      return new ThreadPool(options, {
        error: (message) => void fork(Effect.logError(message)),
        warning: (message) => void fork(Effect.logWarning(message)),
        now: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      })
    }),
    (pool) => Effect.promise(() => pool.end())
  )

export class ThreadPool {
  private readonly members: Array<Member> = []
  private readonly options: ThreadsOptions
  private readonly surroundings: Surroundings
  private readonly freeIds: Array<number> = []
  private nextId = 0
  /** Stopped routes, each with the threads that still have connections of it. */
  private readonly ending = new Map<number, Set<Member>>()
  private readonly endWaiters = new Set<() => void>()
  private readonly common: Omit<CommonData, "index">
  private readonly budget = new Int32Array(new SharedArrayBuffer(budgetWords * 4))
  private readonly lacking = new Set<Member>()
  private readonly inLoop = new Set<number>()
  private paused: boolean
  /** The pool has ended: a thread that dies is not restarted. */
  private hasEnded = false
  private noMoreBefore = Number.NEGATIVE_INFINITY
  /** Only an event ends the native call that a thread waits in. */
  private readonly onProcessExit = () => {
    for (const { thread } of this.members) thread.tellToExit()
  }

  constructor(options: ThreadsOptions, surroundings: Surroundings) {
    this.options = options
    this.surroundings = surroundings
    this.paused = options.paused
    this.common = {
      settings: options.settings,
      ownPorts: new SharedArrayBuffer(2 * portCount * 4),
      budget: this.budget.buffer
    }
  }

  /**
   * The id of a new route, and the thread of a UDP route: the one that has the other routes of its socket, if there
   * are any. `undefined` if the maximum number of routes is reached.
   */
  assign(protocol: "tcp" | "udp", besides: number | undefined) {
    const id = this.freeIds.pop() ?? (this.nextId < maxRoutes ? this.nextId++ : undefined)
    if (id === undefined) return undefined
    const alive = this.members.filter(({ thread }) => thread.isAlive)
    return { id, thread: protocol === "tcp" ? undefined : (besides ?? alive[id % alive.length]?.index ?? 0) }
  }

  /** Serves the route from now on; fails with the reason if a thread can't. */
  serve({ serving, thread }: Assigned): Effect.Effect<void, string> {
    return Effect.suspend(() => {
      this.inLoop.delete(serving.id)
      if (this.members.length === 0) {
        process.once("exit", this.onProcessExit)
        this.add()
      }
      for (const member of this.servers(thread))
        if (!member.thread.isAlive && member.restart === undefined) this.begin(member)
      const watches = !this.paused && !this.hasEnded
      return askAll(this.servers(thread), (member, done) => member.thread.serve([serving], watches, done))
    })
  }

  /** Returns when no thread uses the route's socket any more; its connections end later, and then its id is free. */
  stop({ id, thread, socket }: Stopped): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { graceMillis } = this.options
      const servers = this.servers(thread).filter((member) => member.thread.isAlive)
      this.ending.set(id, new Set(servers))
      if (servers.length === 0) this.ended(id, undefined)
      return Effect.ignore(
        askAll(servers, (member, done) => member.thread.stop(id, socket, graceMillis, done))
      )
    })
  }

  /** Starts to accept connections and packets, if the pool was made paused; fails with the reason if no thread can. */
  readonly resume: Effect.Effect<void, string> = Effect.suspend(() => {
    this.paused = false
    const alive = this.members.filter(({ thread }) => thread.isAlive)
    return askAll(alive, (member, done) => done(member.thread.watch(this.servingsOf(member))))
  })

  /**
   * Stops accepting for good. Returns when no thread accepts or reads from a reserved socket any more; what began
   * before continues for the grace time, a UDP flow for as long as an answer may be on its way.
   */
  drain(graceMillis: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.hasEnded = true
      for (const { restart } of this.members) clearTimeout(restart)
      const alive = this.members.filter(({ thread }) => thread.isAlive)
      for (const { serving, thread } of this.options.routes()) {
        const servers = alive.filter(({ index }) => thread === undefined || thread === index)
        if (servers.length > 0) this.ending.set(serving.id, new Set(servers))
      }
      return Effect.ignore(askAll(alive, (member, done) => member.thread.drain(graceMillis, done)))
    })
  }

  /** Whether anything is left of a stopped or drained route. */
  isEnding(id: number): boolean {
    return this.ending.has(id)
  }

  /** Returns when nothing is left of these routes, by default of all that were stopped or drained. */
  whenEnded(ids?: ReadonlyArray<number>): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const awaited = ids ?? [...this.ending.keys()]
      const look = () => {
        if (awaited.some((id) => this.ending.has(id))) return
        this.endWaiters.delete(look)
        resume(Effect.void)
      }
      this.endWaiters.add(look)
      look()
    })
  }

  countersOf(id: number): Counters {
    const sum = (counter: keyof typeof counterOf) =>
      this.members.reduce(
        (total, { thread }) => total + (thread.counters[id * countersPerRoute + counterOf[counter]] ?? 0),
        0
      )
    return {
      connections: sum("connections"),
      open: sum("open"),
      refused: {
        allow: sum("overAllow"),
        connections: sum("overConnections"),
        rate: sum("overRate"),
        "rate-per-source": sum("overSourceRate")
      },
      bytesIn: sum("bytesIn"),
      bytesOut: sum("bytesOut")
    }
  }

  async end(): Promise<void> {
    this.hasEnded = true
    process.off("exit", this.onProcessExit)
    for (const { restart } of this.members) clearTimeout(restart)
    await Promise.all(this.members.map(({ thread }) => thread.end()))
  }

  private servers(index: number | undefined): ReadonlyArray<Member> {
    return index === undefined ? this.members : this.members.filter((member) => member.index === index)
  }

  private add(): void {
    const member: Member = {
      index: this.members.length,
      thread: new RelayThread(
        { ...this.common, index: this.members.length },
        {
          onWaits: (route) => this.options.onWaits(route),
          onLoop: (route) => this.foundLoop(route),
          onDescriptors: (lacking) => this.lackDescriptors(member, lacking),
          onEnded: (route) => this.ended(route, member),
          onBusy: () => this.busy(member),
          onDeath: (why) => this.died(member, why)
        }
      ),
      restart: undefined,
      deaths: 0,
      begunMillis: 0,
      busySince: Number.NEGATIVE_INFINITY
    }
    this.members.push(member)
    this.budget[budgetOf.threads] = this.members.length
    this.begin(member)
  }

  /** The routes that this thread serves. */
  private servingsOf({ index }: Member): ReadonlyArray<Serving> {
    return Array.from(this.options.routes())
      .filter(({ thread }) => thread === undefined || thread === index)
      .map(({ serving }) => serving)
  }

  private begin(member: Member): void {
    const { thread } = member
    member.begunMillis = this.surroundings.now()
    thread.begin()
    const servings = this.servingsOf(member)
    for (let at = 0; at < servings.length; at += routesPerMessage)
      thread.serve(servings.slice(at, at + routesPerMessage), !this.paused, (failure) => {
        // The thread's death reports that it did not start.
        if (failure !== undefined && thread.hasStarted)
          this.surroundings.error(`a relay thread can't serve all its routes: ${failure}`)
      })
  }

  /** The connections of a stopped route are gone from this thread; once they are gone from all, its id is free. */
  private ended(id: number, member: Member | undefined): void {
    const left = this.ending.get(id)
    if (left === undefined) return
    if (member !== undefined) left.delete(member)
    if (left.size > 0) return
    this.ending.delete(id)
    for (const { thread } of this.members)
      for (let index = 0; index < countersPerRoute; index++)
        thread.counters[id * countersPerRoute + index] = 0
    this.freeIds.push(id)
    for (const look of this.endWaiters) look()
  }

  /** How many threads there are. */
  size(): number {
    return this.members.length
  }

  refused(): Refused {
    const { budget } = this
    return { tcp: budget[budgetOf.refusedTcp] ?? 0, udp: budget[budgetOf.refusedUdp] ?? 0 }
  }

  /** Logs once when the first thread lacks descriptors, and once when the last one has enough again. */
  private lackDescriptors(member: Member, lacking: boolean): void {
    const before = this.lacking.size
    if (lacking) this.lacking.add(member)
    else this.lacking.delete(member)
    if (before === 0 && lacking) {
      const limit = descriptorLimit()
      this.surroundings.warning(
        `descriptors run short (${descriptorsInUse()} of ${limit} in use, up to ${controlReserve(limit)} kept for calls): new connections to relayed ports wait, and new UDP flows replace older ones or are dropped`
      )
    }
    if (before > 0 && this.lacking.size === 0)
      this.surroundings.warning("descriptors suffice again: all relayed ports take new connections")
  }

  /** Logs once for each time that the route is opened. */
  private foundLoop(id: number): void {
    const name = this.options.nameOf(id)
    if (name === undefined || this.inLoop.has(id)) return
    this.inLoop.add(id)
    this.surroundings.error(
      `relay for ${name}: its backend forwards back to the relay, which ends the looping traffic`
    )
  }

  private busy(member: Member): void {
    const now = this.surroundings.now()
    member.busySince = now
    const allAre = this.members.every(({ busySince }) => now - busySince < busyMillis)
    const mayAdd = !this.hasEnded && now >= this.noMoreBefore
    if (allAre && mayAdd && this.members.length < this.options.maxThreads) this.add()
  }

  /** Whether this thread was added last, and no route is served by it alone. */
  private isSpare(member: Member): boolean {
    if (this.members.length < 2 || member !== this.members.at(-1)) return false
    for (const { thread } of this.options.routes()) if (thread === member.index) return false
    return true
  }

  /** Its connections are gone; its sockets wait for its restart. */
  private died(member: Member, why: string): void {
    for (const id of [...this.ending.keys()]) this.ended(id, member)
    for (const { serving } of this.options.routes())
      if (serving.limits !== undefined) forgetThread(serving.limits.state, member.index)
    this.lackDescriptors(member, false)
    if (this.hasEnded) return
    if (!member.thread.hasStarted && this.isSpare(member)) {
      this.members.pop()
      this.budget[budgetOf.threads] = this.members.length
      this.noMoreBefore = this.surroundings.now() + noMoreMillis
      void member.thread.end()
      this.surroundings.error(
        `a relay thread could not be added (${why}); the running threads serve all routes`
      )
      return
    }
    if (this.surroundings.now() - member.begunMillis > maxBackoffMillis) member.deaths = 0
    const delay = Math.min(100 * 2 ** member.deaths++, maxBackoffMillis)
    this.surroundings.error(
      `a relay thread died (${why}); its connections are lost, another serves in ${delay} ms`
    )
    member.restart = setTimeout(() => {
      member.restart = undefined
      for (const _ of this.options.routes()) return this.begin(member)
    }, delay)
    member.restart.unref()
  }
}

/** Fails if no thread could do it: a connection is served by whichever thread accepts it. */
const askAll = (
  members: ReadonlyArray<Member>,
  ask: (member: Member, done: Done) => void
): Effect.Effect<void, string> =>
  Effect.callback((resume) => {
    let left = members.length
    let obeyed = 0
    let failed: string | undefined
    if (left === 0) return resume(Effect.void)
    for (const member of members)
      ask(member, (failure) => {
        if (failure === undefined) obeyed++
        else failed ??= failure
        if (--left === 0) resume(obeyed > 0 || failed === undefined ? Effect.void : Effect.fail(failed))
      })
  })
