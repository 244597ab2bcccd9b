/**
 * One thread of the relay, seen from the plugin's own: its start, what it is told and tells, and its end, after which nothing
 * that was its own is left open. It may be begun again.
 */
import { MessageChannel, type MessagePort, SHARE_ENV, Worker } from "node:worker_threads"
import * as C from "../linux/Libc.ts"
import {
  budgetOf,
  type Command,
  countersPerRoute,
  isOwn,
  maxDescriptors,
  maxRoutes,
  type Report,
  type Serving,
  type ThreadData,
  turnOf,
  turnWords
} from "./ThreadMessages.ts"
import { WatchedSockets } from "./WatchedSockets.ts"

/** Beside this module, in the sources as in what is built of them. */
const threadUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./thread/main.ts" : "./thread/main.js",
  import.meta.url
)

/**
 * How long a thread may take to answer; one that takes longer is ended, since only then its descriptors are free to be
 * closed. Just less than a call of the Engine may take.
 */
const patienceMillis = 9000
/** While it starts it has nothing to lose, and another would not start sooner. */
const startPatienceMillis = 20_000
/** What a thread was told while it rested it is woken for after this long, if nothing else did. */
const wakeMillis = 10

/** What all threads have in common. */
export type CommonData = Pick<ThreadData, "settings" | "ownPorts" | "budget">

export interface ThreadEvents {
  readonly onEnded: (route: number) => void
  readonly onBusy: () => void
  readonly onLoop: (route: number) => void
  readonly onDescriptors: (lacking: boolean) => void
  readonly onDeath: (why: string) => void
}

interface Life {
  readonly worker: Worker
  readonly port: MessagePort
  /** See `turnOf`. */
  readonly turn: Int32Array
  /** Commands that are on their way to the port. */
  readonly untold: Array<Command>
  hasAnswered: boolean
  /** Whether it is to be woken as soon as this turn of the loop is over, and the timer that wakes it later. */
  isToBeWoken: boolean
  wakeTimer: NodeJS.Timeout | undefined
  error: string | undefined
}

/** What is still to be answered is told why it failed, or `undefined` where it was done. */
export type Done = (failure: string | undefined) => void

export class RelayThread {
  /** Of every route, kept from one life to the next; see `counterOf`. */
  readonly counters = new Float64Array(new SharedArrayBuffer(maxRoutes * countersPerRoute * 8))
  private readonly libc = C.libc()
  private readonly kinds = new Uint8Array(new SharedArrayBuffer(maxDescriptors))
  private readonly wake = this.libc.eventfd(0, C.SOCK_NONBLOCK | C.SOCK_CLOEXEC)
  private readonly watched = new WatchedSockets()
  /** In the order of their numbers. */
  private readonly waiting = new Map<number, Done>()
  private readonly events: ThreadEvents
  private readonly common: CommonData
  private readonly budget: Int32Array
  private life: Life | undefined
  private startFailure: string | undefined
  private commands = 0

  constructor(common: CommonData, events: ThreadEvents) {
    this.common = common
    this.budget = new Int32Array(common.budget)
    this.events = events
  }

  get isAlive(): boolean {
    return this.life !== undefined
  }

  /** False from a start that failed to the next that does not. */
  get hasStarted(): boolean {
    return this.startFailure === undefined
  }

  begin(): void {
    const epoll = this.watched.open()
    if (epoll < 0) return void this.didNotStart(this.libc.errno("epoll_create1", epoll).message)
    const { port1, port2 } = new MessageChannel()
    const turn = new Int32Array(new SharedArrayBuffer(turnWords * 4))
    const workerData: ThreadData = {
      port: port2,
      wake: this.wake,
      epoll,
      turn: turn.buffer,
      generations: this.watched.generations.buffer,
      kinds: this.kinds.buffer,
      counters: this.counters.buffer,
      ...this.common
    }
    const worker = newWorker(workerData)
    if (typeof worker === "string") {
      port1.close()
      this.watched.close()
      return void this.didNotStart(worker)
    }
    const life: Life = {
      worker,
      port: port1,
      turn,
      untold: [],
      hasAnswered: false,
      isToBeWoken: false,
      wakeTimer: undefined,
      error: undefined
    }
    this.life = life
    worker.on("error", (error) => {
      life.error = error instanceof Error ? error.message : String(error)
    })
    worker.on("exit", () => this.died(life))
    worker.unref()
    port1.on("message", (reports: ReadonlyArray<Report>) => {
      for (const report of reports) this.heard(life, report)
    })
    port1.unref()
  }

  private didNotStart(why: string): void {
    this.startFailure = `its thread did not start: ${why}`
    setImmediate(() => this.events.onDeath(why))
  }

  /** Serves these routes from now on, whose sockets are watched, unless none are yet. */
  serve(servings: ReadonlyArray<Serving>, watches: boolean, done: Done): void {
    const unwatched = watches ? this.watch(servings) : undefined
    this.tell(
      (number) => ({ _tag: "Serve", number, servings }),
      (failure) => done(failure ?? unwatched)
    )
  }

  /** Why one of them can't be watched, if one can't. */
  watch(servings: Iterable<Serving>): string | undefined {
    let failed: string | undefined
    for (const serving of servings) {
      const failure = this.watched.add(serving)
      failed ??= failure
    }
    return failed
  }

  /** Stops a route; `socket` is let go of where no other route of this thread has it. */
  stop(id: number, socket: number | undefined, graceMillis: number, done: Done): void {
    if (socket !== undefined) this.watched.remove(socket)
    let hadToWait = false
    this.tell(
      (number) => ({ _tag: "Stop", number, id, graceMillis }),
      (failure) => {
        if (socket !== undefined) {
          // Until it knew, the thread may have had it watched again, as it does once it has descriptors again.
          if (hadToWait) this.watched.remove(socket)
          this.watched.forget(socket)
        }
        done(failure)
      }
    )
    hadToWait = true
  }

  drain(graceMillis: number, done: Done): void {
    this.ask((number) => ({ _tag: "Drain", number, graceMillis }), done)
  }

  /**
   * `done` is called once the thread does nothing more before it has obeyed: at once where it rests. One that is about to be
   * begun again is told then, with all the rest.
   */
  private tell(command: (number: number) => Command, done: Done) {
    const { life } = this
    if (life === undefined) return done(this.startFailure)
    if (!life.hasAnswered) return this.ask(command, done)
    const number = this.put(life, command)
    this.post(life)
    if (Atomics.load(life.turn, turnOf.rests) === 0) return this.waitFor(life, number, done)
    this.wakeLater(life)
    done(undefined)
  }

  /** `done` is called once the thread has obeyed. */
  private ask(command: (number: number) => Command, done: Done) {
    const { life } = this
    if (life === undefined) return done(this.startFailure)
    this.waitFor(life, this.put(life, command), done)
  }

  private put({ untold }: Life, command: (number: number) => Command): number {
    const number = ++this.commands
    untold.push(command(number))
    return number
  }

  private waitFor(life: Life, number: number, done: Done): void {
    // Where it was this thread that was kept from running, what arrived meanwhile is heard first.
    const patience = setTimeout(
      () => setImmediate(() => this.giveUp(life, number)),
      life.hasAnswered ? patienceMillis : startPatienceMillis
    )
    this.waiting.set(number, (failure) => {
      clearTimeout(patience)
      done(failure)
    })
    life.port.ref()
    this.wakeSoon(life)
  }

  private giveUp({ worker }: Life, number: number): void {
    if (!this.waiting.has(number)) return
    this.settle(number, "its thread does not answer")
    void worker.terminate()
  }

  tellToExit(): void {
    if (this.life === undefined) return
    this.life.untold.push({ _tag: "Exit" })
    this.post(this.life)
    this.wakeNow()
  }

  /** Ends it for good. */
  async end(): Promise<void> {
    const { life } = this
    if (life !== undefined) {
      const exit = new Promise((resolve) => life.worker.once("exit", resolve))
      this.tellToExit()
      const patience = setTimeout(() => void life.worker.terminate(), patienceMillis)
      await exit
      clearTimeout(patience)
    }
    this.libc.close(this.wake)
  }

  private post({ port, turn, untold }: Life): void {
    if (untold.length === 0) return
    port.postMessage(untold)
    untold.length = 0
    Atomics.add(turn, turnOf.told, 1)
  }

  /** What is asked in one go is told together, and the thread woken once. */
  private wakeSoon(life: Life): void {
    if (life.isToBeWoken) return
    life.isToBeWoken = true
    queueMicrotask(() => {
      life.isToBeWoken = false
      this.post(life)
      this.wakeNow()
    })
  }

  private wakeLater(life: Life): void {
    life.wakeTimer ??= setTimeout(() => {
      life.wakeTimer = undefined
      if (Atomics.load(life.turn, turnOf.heard) !== Atomics.load(life.turn, turnOf.told)) this.wakeNow()
    }, wakeMillis).unref()
  }

  private wakeNow(): void {
    this.libc.write(this.wake, one, one.length)
  }

  private heard(life: Life, report: Report) {
    life.hasAnswered = true
    this.startFailure = undefined
    switch (report._tag) {
      case "Done":
        return this.obeyed(report.number)
      case "Ended":
        return this.events.onEnded(report.id)
      case "Busy":
        return this.events.onBusy()
      case "Loop":
        return this.events.onLoop(report.id)
      case "Descriptors":
        return this.events.onDescriptors(report.lacking)
    }
  }

  private obeyed(last: number): void {
    for (const number of this.waiting.keys()) {
      if (number > last) return
      this.settle(number, undefined)
    }
  }

  private settle(number: number, failure: string | undefined): void {
    const done = this.waiting.get(number)
    this.waiting.delete(number)
    if (this.waiting.size === 0) this.life?.port.unref()
    done?.(failure)
  }

  /** What was asked of a thread that served is done when it is begun again; one that never answered has failed. */
  private died(life: Life): void {
    const why = life.error ?? "it ended by itself"
    this.life = undefined
    life.port.close()
    clearTimeout(life.wakeTimer)
    this.watched.close()
    this.bury()
    if (!life.hasAnswered) this.startFailure = `its thread did not start: ${why}`
    const waiting = [...this.waiting.values()]
    this.waiting.clear()
    for (const done of waiting) done(this.startFailure)
    this.events.onDeath(why)
  }

  private bury(): void {
    for (let fd = 0; fd < this.kinds.length; fd++)
      if (isOwn(this.kinds[fd] ?? 0)) {
        this.libc.setsockopt(fd, C.SOL_SOCKET, C.SO_LINGER, noLinger, noLinger.length)
        this.libc.close(fd)
        Atomics.sub(this.budget, budgetOf.taken, 1)
      }
    this.kinds.fill(0)
  }
}

/** Why there is none, where the system has no thread left. */
const newWorker = (workerData: ThreadData): Worker | string => {
  try {
    return new Worker(threadUrl, {
      name: "portmapper-relay",
      workerData,
      transferList: [workerData.port],
      execArgv: [],
      env: SHARE_ENV,
      resourceLimits: { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 4 }
    })
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const one = new Uint8Array(8)
new DataView(one.buffer).setBigUint64(0, 1n, C.hostLittleEndian)

/** `struct linger { 1, 0 }`: whoever was connected sees a reset. */
const noLinger = new Uint8Array(8)
new DataView(noLinger.buffer).setInt32(0, 1, C.hostLittleEndian)
