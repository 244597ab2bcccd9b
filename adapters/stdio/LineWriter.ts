/**
 * Writes lines to a stream in as few writes as possible: lines that come while the stream is busy are written
 * together. A line may carry an item, which `written` receives once the kernel has taken the line.
 */
import type { Writable } from "node:stream"

/** How many characters may wait for the stream before the writer is full. */
const fullAt = 256 * 1024

export interface LineWriterEvents<A> {
  /** The kernel has taken the lines of these items, in order. */
  readonly written: (items: ReadonlyArray<A>) => void
  /** The stream is gone; lines not reported as written never arrive. Called at most once. */
  readonly gone: (reason: string) => void
}

export class LineWriter<A> {
  private readonly output: Writable
  private readonly events: LineWriterEvents<A>
  private lines: Array<string> = []
  private items: Array<A> = []
  /** Characters waiting or being written. */
  private load = 0
  private scheduled: NodeJS.Immediate | undefined
  private busy = false
  private broken = false
  private waiting: { readonly until: () => boolean; readonly done: () => void } | undefined

  constructor(output: Writable, events: LineWriterEvents<A>) {
    this.output = output
    this.events = events
    output.on("error", this.failed).on("close", this.closed)
    if (output.destroyed || output.writableEnded) queueMicrotask(() => this.lost("the stream is closed"))
  }

  write(line: string, items: ReadonlyArray<A>): void {
    if (this.broken) return
    this.lines.push(line, "\n")
    this.load += line.length + 1
    for (const item of items) this.items.push(item)
    if (!this.busy) this.scheduled ??= setImmediate(this.flush)
  }

  /** Whether the caller should wait before writing more. */
  get isFull(): boolean {
    return this.load >= fullAt
  }

  get isIdle(): boolean {
    return this.load === 0
  }

  /** Calls back once, as soon as the writer has room again or is idle. One waiter at a time. */
  wait(what: "room" | "idle", done: () => void): () => void {
    const until = () => (what === "room" ? !this.isFull : this.isIdle)
    this.waiting = { until, done }
    this.wake()
    return () => {
      this.waiting = undefined
    }
  }

  /** Stops listening and writing. A broken stream keeps its error listener, since the error may come later. */
  close(): void {
    clearImmediate(this.scheduled)
    this.output.off("close", this.closed)
    if (this.isIdle && !this.broken) this.output.off("error", this.failed)
    this.broken = true
  }

  private readonly flush = (): void => {
    this.scheduled = undefined
    if (this.broken || this.lines.length === 0) return
    const { lines, items } = this
    this.lines = []
    this.items = []
    this.busy = true
    const text = lines.join("")
    this.output.write(text, (error) => {
      if (this.broken) return
      if (error) return this.failed(error)
      this.busy = false
      this.load -= text.length
      if (items.length > 0) this.events.written(items)
      this.flush()
      this.wake()
    })
  }

  private wake(): void {
    const { waiting } = this
    if (waiting === undefined || !waiting.until()) return
    this.waiting = undefined
    waiting.done()
  }

  private readonly failed = (error: Error): void => this.lost(error.message)

  private readonly closed = (): void => this.lost("the stream was closed")

  private lost(reason: string): void {
    if (this.broken) return
    this.broken = true
    this.events.gone(reason)
  }
}
