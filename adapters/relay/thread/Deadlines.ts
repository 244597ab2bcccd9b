// biome-ignore-all lint/style/noNonNullAssertion: three numbers are put and taken at a time
/**
 * Descriptors that something is to be done about after one and the same delay: a queue, since the first to come is the first
 * to be due. What needs nothing any more is taken out once it is first.
 */
import { generation } from "./ThreadData.ts"

export class Deadlines {
  /** Descriptor, generation and time, one after another. */
  private entries: Array<number> = []
  private head = 0
  private readonly isWaiting: (fd: number) => boolean

  constructor(isWaiting: (fd: number) => boolean) {
    this.isWaiting = isWaiting
  }

  add(fd: number, due: number): void {
    this.entries.push(fd, generation[fd]!, due)
  }

  get isEmpty(): boolean {
    return this.head === this.entries.length
  }

  /** Calls for each descriptor that still waits and is due. */
  run(now: number, each: (fd: number) => void): void {
    while (!this.isEmpty) {
      const fd = this.entries[this.head]!
      if (generation[fd] === this.entries[this.head + 1] && this.isWaiting(fd)) {
        if (this.entries[this.head + 2]! > now) break
        each(fd)
      }
      this.head += 3
    }
    if (this.head > this.entries.length / 2) {
      this.entries = this.entries.slice(this.head)
      this.head = 0
    }
  }
}
