/**
 * One thread of the relay, seen from the plugin's own: its start, what it is told and tells, and its end, after which nothing
 * that was its own is left open. It may be begun again.
 */
import { MessageChannel, type MessagePort, SHARE_ENV, Worker } from "node:worker_threads"
import * as C from "../linux/Libc.ts"
import {
  type Command,
  countersPerRoute,
  isOwn,
  maxDescriptors,
  maxRoutes,
  type Report,
  type Settings,
  type ThreadData
} from "./Messages.ts"

/** Beside this module, in the sources as in what is built of them. */
const threadUrl = new URL(
  import.meta.url.endsWith(".ts") ? "./threadMain.ts" : "./threadMain.js",
  import.meta.url
)

/**
 * How long a thread may take to answer; one that takes longer is ended, since only then its descriptors are free to be
 * closed. Just less than a call of the Engine may take.
 */
const patienceMillis = 9000
/** While it starts it has nothing to lose, and another would not start sooner. */
const startPatienceMillis = 20_000

export interface ThreadEvents {
  readonly onEnded: (route: number) => void
  readonly onBusy: () => void
  /** `ranMillis` from its start to its end. */
  readonly onDeath: (why: string, ranMillis: number) => void
}

interface Life {
  readonly worker: Worker
  readonly port: MessagePort
  /** Commands that are on their way to the port. */
  readonly untold: Array<Command>
  readonly begun: number
  hasAnswered: boolean
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
  private readonly waiting = new Map<number, Done>()
  private readonly settings: Settings
  private readonly events: ThreadEvents
  private life: Life | undefined
  private startFailure: string | undefined
  private commands = 0

  constructor(settings: Settings, events: ThreadEvents) {
    this.settings = settings
    this.events = events
  }

  get isAlive(): boolean {
    return this.life !== undefined
  }

  /** False from a start that failed to the next that does not. */
  get hasStarted(): boolean {
    return this.startFailure === undefined
  }

  begin(paused: boolean): void {
    const { port1, port2 } = new MessageChannel()
    const workerData: ThreadData = {
      paused,
      port: port2,
      wake: this.wake,
      kinds: this.kinds.buffer,
      counters: this.counters.buffer,
      settings: this.settings
    }
    const worker = newWorker(workerData)
    if (typeof worker === "string") {
      port1.close()
      this.startFailure = `its thread did not start: ${worker}`
      return void setImmediate(() => this.events.onDeath(worker, 0))
    }
    const life: Life = {
      worker,
      port: port1,
      untold: [],
      begun: Date.now(),
      hasAnswered: false,
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

  /** A thread that is about to be begun again is told then, with all the rest: `done` is called at once. */
  ask(command: (number: number) => Command, done: Done) {
    const { life } = this
    if (life === undefined) return done(this.startFailure)
    const number = ++this.commands
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
    this.tell(life, command(number))
  }

  private giveUp({ worker }: Life, number: number): void {
    if (!this.waiting.has(number)) return
    this.settle(number, "its thread does not answer")
    void worker.terminate()
  }

  tellToExit(): void {
    if (this.life === undefined) return
    this.life.untold.push({ _tag: "Exit" })
    this.tellAll(this.life)
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

  /** What is asked in one go is told together, and the thread woken once. */
  private tell(life: Life, command: Command): void {
    life.untold.push(command)
    if (life.untold.length === 1) queueMicrotask(() => this.tellAll(life))
  }

  private tellAll({ port, untold }: Life): void {
    if (untold.length === 0) return
    port.postMessage(untold)
    untold.length = 0
    this.libc.write(this.wake, one, one.length)
  }

  private heard(life: Life, report: Report) {
    life.hasAnswered = true
    this.startFailure = undefined
    switch (report._tag) {
      case "Done":
        return this.settle(report.number, report.failure)
      case "Ended":
        return this.events.onEnded(report.id)
      case "Busy":
        return this.events.onBusy()
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
    this.bury()
    if (!life.hasAnswered) this.startFailure = `its thread did not start: ${why}`
    const waiting = [...this.waiting.values()]
    this.waiting.clear()
    for (const done of waiting) done(this.startFailure)
    this.events.onDeath(why, Date.now() - life.begun)
  }

  private bury(): void {
    for (let fd = 0; fd < this.kinds.length; fd++)
      if (isOwn(this.kinds[fd] ?? 0)) {
        this.libc.setsockopt(fd, C.SOL_SOCKET, C.SO_LINGER, noLinger, noLinger.length)
        this.libc.close(fd)
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
