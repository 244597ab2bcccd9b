/**
 * Reads lines from a byte stream on demand: nothing is read ahead except what the stream itself buffers, and nothing
 * of a line over the limit is kept.
 */
import type { Readable } from "node:stream"
import { Effect, Schema } from "effect"

/** The longest request, in bytes of its line. */
export const maxLineBytes = 1024 * 1024

/** The stream failed; `message` names the operation. */
export class StreamFailed extends Schema.TaggedError<StreamFailed>()("StreamFailed", {
  operation: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.operation} failed: ${this.detail}`
  }
}

/** Stands for a line over the limit. The rest of the line is skipped. */
export const tooLong: unique symbol = Symbol("portmapper/stdio/tooLong")

/** Text without its line end (`\n` or `\r\n`). Invalid UTF-8 becomes U+FFFD. */
export type Line = string | typeof tooLong

const newline = 0x0a

export class LineReader {
  private readonly input: Readable
  private readonly maxBytes: number
  /** The unfinished line: the first `held` bytes. */
  private buffer = Buffer.alloc(0)
  private held = 0
  private skipping = false
  private failed: Error | undefined
  private waiting: (() => void) | undefined
  private readonly wake = () => this.waiting?.()
  private readonly fail = (error: Error) => {
    this.failed = error
    this.wake()
  }

  constructor(input: Readable, maxBytes: number) {
    this.input = input
    this.maxBytes = maxBytes
    input.on("readable", this.wake).on("end", this.wake).on("close", this.wake).on("error", this.fail)
  }

  /** Stops listening except for errors: a late one, of a socket for example, must not end the process. */
  close(): void {
    this.input.off("readable", this.wake).off("end", this.wake).off("close", this.wake)
  }

  /** The lines of the next chunk, to be consumed before the next call; `undefined` after the end. */
  readonly next: Effect.Effect<Iterable<Line> | undefined, StreamFailed> = Effect.callback((resume) => {
    const take = () => {
      const chunk = this.failed === undefined ? this.input.read() : null
      const { readableEnded, destroyed } = this.input
      if (chunk === null && this.failed === undefined && !readableEnded && !destroyed) {
        this.waiting = take
        return
      }
      this.waiting = undefined
      if (chunk !== null) resume(Effect.succeed(this.split(bytesOf(chunk))))
      else if (this.failed === undefined) resume(Effect.undefined)
      else resume(Effect.fail(new StreamFailed({ operation: "reading", detail: this.failed.message })))
    }
    take()
    return Effect.sync(() => {
      this.waiting = undefined
    })
  })

  /** The text after the last line end, if any. */
  rest(): Line | undefined {
    const { buffer, held } = this
    this.held = 0
    return held === 0 ? undefined : text(buffer, 0, held)
  }

  private *split(chunk: Buffer): Generator<Line> {
    let start = 0
    for (;;) {
      const end = chunk.indexOf(newline, start)
      const length = (end === -1 ? chunk.length : end) - start
      if (!this.skipping && this.held + length > this.maxBytes) {
        this.skipping = true
        this.held = 0
        this.buffer = Buffer.alloc(0)
        yield tooLong
      }
      if (end === -1) {
        if (!this.skipping) this.hold(chunk, start)
        return
      }
      if (this.skipping) this.skipping = false
      else if (this.held === 0) yield text(chunk, start, end)
      else {
        this.hold(chunk, start, end)
        const { buffer, held } = this
        this.held = 0
        yield text(buffer, 0, held)
      }
      start = end + 1
    }
  }

  /** Copies into one growing buffer: otherwise bytes that arrive one at a time would cost an object each. */
  private hold(chunk: Buffer, start: number, end = chunk.length): void {
    const needed = this.held + end - start
    if (needed > this.buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(needed, this.buffer.length * 2, 256))
      this.buffer.copy(grown, 0, 0, this.held)
      this.buffer = grown
    }
    chunk.copy(this.buffer, this.held, start, end)
    this.held = needed
  }
}

const text = (buffer: Buffer, start: number, end: number): string => {
  const last = end > start && buffer[end - 1] === 0x0d ? end - 1 : end
  return buffer.toString("utf8", start, last)
}

const bytesOf = (chunk: string | Uint8Array): Buffer =>
  typeof chunk === "string"
    ? Buffer.from(chunk)
    : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
