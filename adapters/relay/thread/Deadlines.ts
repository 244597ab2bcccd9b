// biome-ignore-all lint/style/noNonNullAssertion: three numbers are put and taken at a time
/**
 * Descriptors with a deadline after one and the same delay: a queue, since the first to enter is the first to be
 * due. An entry that is no longer needed is removed once it is first.
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

  /** Calls back for each descriptor that is still waiting and due. */
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
