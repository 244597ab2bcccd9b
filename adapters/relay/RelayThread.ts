/**
 * One thread of the relay, seen from the plugin's: its start, the commands it gets and the reports it sends, and
 * its end, after which none of its descriptors stays open. It can be restarted.
 */
import { MessageChannel, type MessagePort, SHARE_ENV, Worker } from "node:worker_threads"
import * as C from "../linux/Libc.ts"
import {
  budgetOf,
  type Command,
  counterOf,
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
import { threadProgram } from "./threadProgram.ts"
import { WatchedSockets } from "./WatchedSockets.ts"

/**
 * How long a thread may take to answer. A slower one is terminated, since only then can its descriptors be closed.
 * Just less than a call of the Engine may take.
 */
const patienceMillis = 9000
/** A starting thread has nothing to lose, and another would not start sooner. */
const startPatienceMillis = 20_000
/** How long a resting thread keeps a command unread before it is woken, if nothing else wakes it. */
const wakeMillis = 10

/** Data that all threads share, and the thread's number. */
export type CommonData = Pick<ThreadData, "index" | "settings" | "ownPorts" | "budget">

export interface ThreadEvents {
  readonly onEnded: (route: number) => void
  readonly onBusy: () => void
  readonly onLoop: (route: number) => void
  readonly onWaits: (route: number) => void
  readonly onDescriptors: (lacking: boolean) => void
  readonly onDeath: (why: string) => void
}

interface ThreadRun {
  readonly worker: Worker
  readonly port: MessagePort
  /** See `turnOf`. */
  readonly turn: Int32Array
  /** Commands not yet posted to the port. */
  readonly unsent: Array<Command>
  hasAnswered: boolean
  /** Whether to wake the thread at the end of this turn of the loop, and the timer that wakes it later. */
  isToBeWoken: boolean
  wakeTimer: NodeJS.Timeout | undefined
  error: string | undefined
}

/** Called with the reason of the failure, or with `undefined` once the command is done. */
export type Done = (failure: string | undefined) => void

export class RelayThread {
  /** Of every route, kept through restarts; see `counterOf`. */
  readonly counters = new Float64Array(new SharedArrayBuffer(maxRoutes * countersPerRoute * 8))
  private readonly libc = C.libc()
  private readonly kinds = new Uint8Array(new SharedArrayBuffer(maxDescriptors))
  private readonly wake = this.libc.eventfd(0, C.SOCK_NONBLOCK | C.SOCK_CLOEXEC)
  private readonly watched = new WatchedSockets()
  /** In the order of the commands' numbers. */
  private readonly waiting = new Map<number, Done>()
  private readonly events: ThreadEvents
  private readonly common: CommonData
  private readonly budget: Int32Array
  private run: ThreadRun | undefined
  private startFailure: string | undefined
  private commands = 0

  constructor(common: CommonData, events: ThreadEvents) {
    this.common = common
    this.budget = new Int32Array(common.budget)
    this.events = events
  }

  get isAlive(): boolean {
    return this.run !== undefined
  }

  /** False from a failed start until a start that succeeds. */
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
      loadedBy: import.meta.url,
      ...this.common
    }
    const worker = newWorker(workerData)
    if (typeof worker === "string") {
      port1.close()
      this.watched.close()
      return void this.didNotStart(worker)
    }
    const run: ThreadRun = {
      worker,
      port: port1,
      turn,
      unsent: [],
      hasAnswered: false,
      isToBeWoken: false,
      wakeTimer: undefined,
      error: undefined
    }
    this.run = run
    worker.on("error", (error) => {
      run.error = error instanceof Error ? error.message : String(error)
    })
    worker.on("exit", () => this.died(run))
    worker.unref()
    port1.on("message", (reports: ReadonlyArray<Report>) => {
      for (const report of reports) this.receive(run, report)
    })
    port1.unref()
  }

  private didNotStart(why: string): void {
    this.startFailure = `its thread did not start: ${why}`
    setImmediate(() => this.events.onDeath(why))
  }

  /** Serves these routes from now on; adds their sockets to the epoll instance if `watches`. */
  serve(servings: ReadonlyArray<Serving>, watches: boolean, done: Done): void {
    const unwatched = watches ? this.watch(servings) : undefined
    this.submit(
      (number) => ({ _tag: "Serve", number, servings }),
      (failure) => done(failure ?? unwatched)
    )
  }

  /** Returns why a socket can't be watched, if one can't. */
  watch(servings: Iterable<Serving>): string | undefined {
    let failed: string | undefined
    for (const serving of servings) {
      const failure = this.watched.add(serving)
      failed ??= failure
    }
    return failed
  }

  /** Stops a route; releases `socket`, which is set if no other route of this thread has it. */
  stop(id: number, socket: number | undefined, graceMillis: number, done: Done): void {
    if (socket !== undefined) this.watched.remove(socket)
    let hadToWait = false
    this.submit(
      (number) => ({ _tag: "Stop", number, id, graceMillis }),
      (failure) => {
        if (socket !== undefined) {
          // Until it read the command, the thread may have added the socket again, as it does once descriptors are
          // free.
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
   * Calls `done` once the thread can do nothing more before it obeys: at once if it rests. A thread that is about
   * to be restarted gets the command with all the rest.
   */
  private submit(command: (number: number) => Command, done: Done) {
    const { run } = this
    if (run === undefined) return done(this.startFailure)
    if (!run.hasAnswered) return this.ask(command, done)
    const number = this.put(run, command)
    this.post(run)
    if (Atomics.load(run.turn, turnOf.rests) === 0) return this.waitFor(run, number, done)
    this.wakeLater(run)
    done(undefined)
  }

  /** Calls `done` once the thread has obeyed. */
  private ask(command: (number: number) => Command, done: Done) {
    const { run } = this
    if (run === undefined) return done(this.startFailure)
    this.waitFor(run, this.put(run, command), done)
  }

  private put({ unsent }: ThreadRun, command: (number: number) => Command): number {
    const number = ++this.commands
    unsent.push(command(number))
    return number
  }

  private waitFor(run: ThreadRun, number: number, done: Done): void {
    // If this thread was the one that was delayed, it first reads the reports that arrived meanwhile.
    const patience = setTimeout(
      () => setImmediate(() => this.giveUp(run, number)),
      run.hasAnswered ? patienceMillis : startPatienceMillis
    )
    this.waiting.set(number, (failure) => {
      clearTimeout(patience)
      done(failure)
    })
    run.port.ref()
    this.wakeSoon(run)
  }

  private giveUp({ worker }: ThreadRun, number: number): void {
    if (!this.waiting.has(number)) return
    this.settle(number, "its thread does not answer")
    void worker.terminate()
  }

  tellToExit(): void {
    if (this.run === undefined) return
    this.run.unsent.push({ _tag: "Exit" })
    this.post(this.run)
    this.wakeNow()
  }

  /** Ends the thread for good. */
  async end(): Promise<void> {
    const { run } = this
    if (run !== undefined) {
      const exit = new Promise((resolve) => run.worker.once("exit", resolve))
      this.tellToExit()
      const patience = setTimeout(() => void run.worker.terminate(), patienceMillis)
      await exit
      clearTimeout(patience)
    }
    this.libc.close(this.wake)
  }

  private post({ port, turn, unsent }: ThreadRun): void {
    if (unsent.length === 0) return
    port.postMessage(unsent)
    unsent.length = 0
    Atomics.add(turn, turnOf.sent, 1)
  }

  /** Posts the commands of one turn together, and wakes the thread once. */
  private wakeSoon(run: ThreadRun): void {
    if (run.isToBeWoken) return
    run.isToBeWoken = true
    queueMicrotask(() => {
      run.isToBeWoken = false
      this.post(run)
      this.wakeNow()
    })
  }

  private wakeLater(run: ThreadRun): void {
    run.wakeTimer ??= setTimeout(() => {
      run.wakeTimer = undefined
      if (Atomics.load(run.turn, turnOf.read) !== Atomics.load(run.turn, turnOf.sent)) this.wakeNow()
    }, wakeMillis).unref()
  }

  private wakeNow(): void {
    this.libc.write(this.wake, one, one.length)
  }

  private receive(run: ThreadRun, report: Report) {
    run.hasAnswered = true
    this.startFailure = undefined
    switch (report._tag) {
      case "Done":
        return this.obeyed(report.number)
      case "Ended":
        return this.events.onEnded(report.id)
      case "Busy":
        return this.events.onBusy()
      case "Waits":
        return this.events.onWaits(report.id)
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
    if (this.waiting.size === 0) this.run?.port.unref()
    done?.(failure)
  }

  /**
   * A restart carries out the commands of a thread that had answered; for a thread that never answered they fail.
   */
  private died(run: ThreadRun): void {
    const why = run.error ?? "it ended by itself"
    this.run = undefined
    run.port.close()
    clearTimeout(run.wakeTimer)
    this.watched.close()
    this.bury()
    if (!run.hasAnswered) this.startFailure = `its thread did not start: ${why}`
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
    for (let at = counterOf.open; at < this.counters.length; at += countersPerRoute) this.counters[at] = 0
  }
}

/** Returns an error text if the system has no thread left. */
const newWorker = (workerData: ThreadData): Worker | string => {
  try {
    return new Worker(threadProgram, {
      name: "portmapper-relay",
      workerData,
      transferList: [workerData.port],
      eval: typeof threadProgram === "string",
      execArgv: typeof threadProgram === "string" ? ["--input-type=module"] : [],
      env: SHARE_ENV,
      resourceLimits: { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 4 }
    })
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

const one = new Uint8Array(8)
new DataView(one.buffer).setBigUint64(0, 1n, C.hostLittleEndian)

/** `struct linger { 1, 0 }`: the peer gets a reset. */
const noLinger = new Uint8Array(8)
new DataView(noLinger.buffer).setInt32(0, 1, C.hostLittleEndian)
