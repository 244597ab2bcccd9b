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

/** How long a thread may take to answer; one that takes longer is ended. */
const patienceMillis = 5000

export interface ThreadEvents {
  readonly onEnded: (route: number) => void
  readonly onBusy: () => void
  /** `ranMillis` from its start to its end. */
  readonly onDeath: (why: string, ranMillis: number) => void
}

interface Life {
  readonly worker: Worker
  readonly port: MessagePort
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
    const worker = new Worker(threadUrl, {
      name: "portmapper-relay",
      workerData,
      transferList: [port2],
      execArgv: [],
      env: SHARE_ENV,
      resourceLimits: { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 4 }
    })
    const life: Life = { worker, port: port1, begun: Date.now(), hasAnswered: false, error: undefined }
    this.life = life
    worker.on("error", (error) => {
      life.error = error instanceof Error ? error.message : String(error)
    })
    worker.on("exit", () => this.died(life))
    worker.unref()
    port1.on("message", (report: Report) => this.heard(life, report))
    port1.unref()
  }

  /** A thread that is about to be begun again is told then, with all the rest: `done` is called at once. */
  ask(command: (number: number) => Command, done: Done) {
    const { life } = this
    if (life === undefined) return done(this.startFailure)
    const number = ++this.commands
    const patience = setTimeout(() => {
      this.settle(number, "its thread does not answer")
      void life.worker.terminate()
    }, patienceMillis)
    this.waiting.set(number, (failure) => {
      clearTimeout(patience)
      done(failure)
    })
    life.port.ref()
    life.port.postMessage(command(number))
    this.wakeUp()
  }

  tellToExit(): void {
    this.life?.port.postMessage({ _tag: "Exit" } satisfies Command)
    this.wakeUp()
  }

  /** Ends it for good. */
  async end(): Promise<void> {
    const { life } = this
    if (life !== undefined) {
      const exit = new Promise((resolve) => life.worker.once("exit", resolve))
      this.tellToExit()
      await exit
    }
    this.libc.close(this.wake)
  }

  private wakeUp(): void {
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

const one = new Uint8Array(8)
new DataView(one.buffer).setBigUint64(0, 1n, C.hostLittleEndian)

/** `struct linger { 1, 0 }`: whoever was connected sees a reset. */
const noLinger = new Uint8Array(8)
new DataView(noLinger.buffer).setInt32(0, 1, C.hostLittleEndian)
