/**
 * The relay's threads, seen from the plugin's own: started with the first route, more of them when all are busy, and again when
 * one died. A TCP route is served by every thread, so that its connections spread; a UDP route by one, which has its flows.
 */
import { MessageChannel, type MessagePort, SHARE_ENV, Worker } from "node:worker_threads"
import { Effect, type Scope } from "effect"
import type { RelayCount } from "../../src/relay/Relay.ts"
import * as C from "../linux/Libc.ts"
import {
  type Command,
  counterOf,
  countersPerRoute,
  isOwn,
  maxDescriptors,
  maxRoutes,
  type Report,
  type Serving,
  type Settings,
  type ThreadData
} from "./Messages.ts"

/** Beside this module, in the sources as in what is built of them. */
const threadUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./relayThread.ts" : "./relayThread.js",
  import.meta.url
)

/** A route with the thread that serves it, where not all of them do. */
export interface Assigned {
  readonly serving: Serving
  readonly thread: number | undefined
}

export type Counters = Pick<RelayCount, "connections" | "refused" | "bytesIn" | "bytesOut">

export interface RelayThreads {
  /** The id of a new route, and the thread of a UDP route; `undefined` where there are as many as can be. */
  readonly assign: (protocol: "tcp" | "udp") => { id: number; thread: number | undefined } | undefined
  /** Serves what `assigned` names from now on; fails with the reason why it can't. */
  readonly serve: (assigned: Assigned) => Effect.Effect<void, string>
  /** Returns when no thread holds on to the route's socket; its connections end later, and then its id is free. */
  readonly stop: (assigned: Pick<Assigned, "thread"> & { id: number; fd: number }) => Effect.Effect<void>
  readonly counters: (id: number) => Counters
}

export interface ThreadsOptions {
  readonly settings: Settings
  readonly maxThreads: number
  readonly graceMillis: number
  /** Everything that is to be served now: what a new thread begins with. */
  readonly routes: () => Iterable<Assigned>
}

/** How long a thread may take to answer. */
const patienceMillis = 5000
const routesPerMessage = 500
/** A thread that dies again is started again after twice the time, at most this long. */
const maxBackoffMillis = 30_000
/** Busy are those who said so no longer ago than this. */
const busyMillis = 1200

interface Thread {
  readonly index: number
  readonly kinds: SharedArrayBuffer
  readonly counters: SharedArrayBuffer
  readonly wake: number
  readonly waiting: Map<number, (failure: string | undefined) => void>
  life: Life | undefined
  restart: NodeJS.Timeout | undefined
  deaths: number
  /** Why it could not start the last time it was tried. */
  startFailure: string | undefined
  busySince: number
}

interface Life {
  readonly worker: Worker
  readonly port: MessagePort
  readonly begun: number
  hasAnswered: boolean
  error: string | undefined
}

export const makeRelayThreads = (options: ThreadsOptions): Effect.Effect<RelayThreads, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.context<never>(), (context) => {
      const log = Effect.runForkWith(context)
      return new Threads(options, (message) => void log(Effect.logError(message)))
    }),
    (threads) => Effect.promise(() => threads.dispose())
  ).pipe(
    Effect.map((threads) => ({
      assign: (protocol) => threads.assign(protocol),
      serve: (assigned) =>
        Effect.callback((resume) =>
          threads.serve(assigned, (failure) =>
            resume(failure === undefined ? Effect.void : Effect.fail(failure))
          )
        ),
      stop: (assigned) => Effect.callback((resume) => threads.stop(assigned, () => resume(Effect.void))),
      counters: (id) => threads.countersOf(id)
    }))
  )

class Threads {
  private readonly libc = C.libc()
  private readonly threads: Array<Thread> = []
  private readonly options: ThreadsOptions
  private readonly logError: (message: string) => void
  private readonly freeIds: Array<number> = []
  private nextId = 0
  /** Stopped routes, each with the threads that still have connections of it. */
  private readonly ending = new Map<number, Set<Thread>>()
  private commands = 0
  private disposed = false
  private readonly onProcessExit = () => this.tellToExit()

  constructor(options: ThreadsOptions, logError: (message: string) => void) {
    this.options = options
    this.logError = logError
  }

  assign(protocol: "tcp" | "udp") {
    const id = this.freeIds.pop() ?? (this.nextId < maxRoutes ? this.nextId++ : undefined)
    if (id === undefined) return undefined
    return { id, thread: protocol === "tcp" ? undefined : id % Math.max(this.threads.length, 1) }
  }

  serve({ serving, thread }: Assigned, done: (failure: string | undefined) => void): void {
    if (this.threads.length === 0) {
      process.once("exit", this.onProcessExit)
      this.add()
    }
    for (const each of this.servers(thread))
      if (each.life === undefined && each.deaths === 0) this.begin(each, [])
    this.askAll(this.servers(thread), (number) => ({ _tag: "Serve", number, servings: [serving] }), done)
  }

  stop({ id, fd, thread }: Pick<Assigned, "thread"> & { id: number; fd: number }, done: () => void): void {
    const servers = this.servers(thread).filter(({ life }) => life !== undefined)
    const { graceMillis } = this.options
    this.ending.set(id, new Set(servers))
    this.askAll(servers, (number) => ({ _tag: "Stop", number, id, fd, graceMillis }), done)
    if (servers.length === 0) this.ended(id, undefined)
  }

  countersOf(id: number): Counters {
    const sum = { connections: 0, refused: 0, bytesIn: 0, bytesOut: 0 }
    for (const { counters } of this.threads) {
      const own = new Float64Array(counters, id * countersPerRoute * 8, countersPerRoute)
      for (const name of ["connections", "refused", "bytesIn", "bytesOut"] as const)
        sum[name] += own[counterOf[name]] ?? 0
    }
    return sum
  }

  async dispose(): Promise<void> {
    this.disposed = true
    process.off("exit", this.onProcessExit)
    const exits = this.threads.map(
      ({ life }) =>
        new Promise<void>((resolve) =>
          life === undefined ? resolve() : life.worker.once("exit", () => resolve())
        )
    )
    this.tellToExit()
    await Promise.all(exits)
    for (const { wake, restart } of this.threads) {
      clearTimeout(restart)
      this.libc.close(wake)
    }
  }

  private servers(thread: number | undefined): ReadonlyArray<Thread> {
    return thread === undefined ? this.threads : this.threads.filter(({ index }) => index === thread)
  }

  /** Another thread, which begins with every route that all threads serve. */
  private add(): void {
    const thread: Thread = {
      index: this.threads.length,
      kinds: new SharedArrayBuffer(maxDescriptors),
      counters: new SharedArrayBuffer(maxRoutes * countersPerRoute * 8),
      wake: this.libc.eventfd(0, C.SOCK_NONBLOCK | C.SOCK_CLOEXEC),
      waiting: new Map(),
      life: undefined,
      restart: undefined,
      deaths: 0,
      startFailure: undefined,
      busySince: 0
    }
    this.threads.push(thread)
    const routes = this.threads.length === 1 ? [] : [...this.options.routes()]
    this.begin(thread, routes)
  }

  private begin(thread: Thread, routes: ReadonlyArray<Assigned>): void {
    const { port1, port2 } = new MessageChannel()
    const workerData: ThreadData = {
      port: port2,
      wake: thread.wake,
      kinds: thread.kinds,
      counters: thread.counters,
      settings: this.options.settings
    }
    const worker = new Worker(threadUrl, {
      name: "portmapper-relay",
      workerData,
      transferList: [port2],
      execArgv: [],
      env: SHARE_ENV,
      resourceLimits: { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 4 }
    })
    const life: Life = { worker, port: port1, begun: Date.now(), hasAnswered: false, error: undefined }
    thread.life = life
    worker.on("error", (error) => {
      life.error = error instanceof Error ? error.message : String(error)
    })
    worker.on("exit", () => this.died(thread, life))
    worker.unref()
    port1.on("message", (report: Report) => this.heard(thread, life, report))
    port1.unref()
    const own = routes.filter(({ thread: index }) => index === undefined || index === thread.index)
    for (let at = 0; at < own.length; at += routesPerMessage) {
      const servings = own.slice(at, at + routesPerMessage).map(({ serving }) => serving)
      this.ask(
        thread,
        (number) => ({ _tag: "Serve", number, servings }),
        (failure) => {
          if (failure !== undefined) this.logError(`a relay thread serves less than it should: ${failure}`)
        }
      )
    }
  }

  private heard(thread: Thread, life: Life, report: Report) {
    life.hasAnswered = true
    thread.startFailure = undefined
    switch (report._tag) {
      case "Done":
        return this.settle(thread, report.number, report.failure)
      case "Ended":
        return this.ended(report.id, thread)
      case "Busy":
        thread.busySince = Date.now()
        if (this.threads.length < this.options.maxThreads && this.threads.every(isBusy)) this.add()
    }
  }

  private settle(thread: Thread, number: number, failure: string | undefined): void {
    const done = thread.waiting.get(number)
    thread.waiting.delete(number)
    if (thread.waiting.size === 0) thread.life?.port.unref()
    done?.(failure)
  }

  /** The connections of a stopped route are gone from this thread; once from all, its id is free. */
  private ended(id: number, thread: Thread | undefined): void {
    const left = this.ending.get(id)
    if (left === undefined) return
    if (thread !== undefined) left.delete(thread)
    if (left.size > 0) return
    this.ending.delete(id)
    for (const { counters } of this.threads)
      new Float64Array(counters, id * countersPerRoute * 8, countersPerRoute).fill(0)
    this.freeIds.push(id)
  }

  private askAll(
    threads: ReadonlyArray<Thread>,
    command: (number: number) => Command,
    done: (failure: string | undefined) => void
  ) {
    let left = threads.length
    let failed: string | undefined
    if (left === 0) return done(undefined)
    for (const thread of threads)
      this.ask(thread, command, (failure) => {
        failed ??= failure
        if (--left === 0) done(failed)
      })
  }

  /** A thread that is about to be started again is told then, with all the rest. */
  private ask(
    thread: Thread,
    command: (number: number) => Command,
    done: (failure: string | undefined) => void
  ) {
    const { life } = thread
    if (life === undefined) return done(thread.startFailure)
    const number = ++this.commands
    const patience = setTimeout(() => {
      this.settle(thread, number, "its thread does not answer")
      void life.worker.terminate()
    }, patienceMillis)
    thread.waiting.set(number, (failure) => {
      clearTimeout(patience)
      done(failure)
    })
    life.port.ref()
    life.port.postMessage(command(number))
    this.wakeUp(thread)
  }

  private wakeUp({ wake }: Thread): void {
    this.libc.write(wake, one, one.length)
  }

  private tellToExit(): void {
    for (const thread of this.threads) {
      thread.life?.port.postMessage({ _tag: "Exit" } satisfies Command)
      this.wakeUp(thread)
    }
  }

  /** Closes what a dead thread has left open, and starts it again with every route it served. */
  private died(thread: Thread, life: Life): void {
    thread.life = undefined
    life.port.close()
    bury(this.libc, new Uint8Array(thread.kinds))
    const waiting = [...thread.waiting.values()]
    thread.waiting.clear()
    const why = life.error ?? "it ended by itself"
    if (!life.hasAnswered && !this.disposed) thread.startFailure = `its thread did not start: ${why}`
    for (const done of waiting) done(thread.startFailure)
    for (const id of [...this.ending.keys()]) this.ended(id, thread)
    if (this.disposed) return
    if (Date.now() - life.begun > maxBackoffMillis) thread.deaths = 0
    const delay = Math.min(100 * 2 ** thread.deaths++, maxBackoffMillis)
    this.logError(`a relay thread died (${why}); its connections are lost, another serves in ${delay} ms`)
    thread.restart = setTimeout(() => {
      thread.restart = undefined
      const routes = [...this.options.routes()]
      if (routes.length > 0) this.begin(thread, routes)
    }, delay)
    thread.restart.unref()
  }
}

const one = new Uint8Array(8)
new DataView(one.buffer).setBigUint64(0, 1n, C.hostLittleEndian)

const isBusy = ({ busySince }: Thread): boolean => Date.now() - busySince < busyMillis

/** `struct linger { 1, 0 }`: whoever was connected sees a reset. */
const noLinger = new Uint8Array(8)
new DataView(noLinger.buffer).setInt32(0, 1, C.hostLittleEndian)

const bury = (libc: C.Libc, kinds: Uint8Array): void => {
  for (let fd = 0; fd < kinds.length; fd++)
    if (isOwn(kinds[fd] ?? 0)) {
      libc.setsockopt(fd, C.SOL_SOCKET, C.SO_LINGER, noLinger, noLinger.length)
      libc.close(fd)
    }
  kinds.fill(0)
}
