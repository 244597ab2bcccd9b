/** Random choices that a seed repeats (mulberry32). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** From 0 inclusive to 1 exclusive. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit)
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<const All extends readonly [unknown, ...ReadonlyArray<unknown>]>(all: All): All[number] {
    return all[this.below(all.length)]
  }

  /** At most `atMost` of them, in random order. */
  some<A>(all: ReadonlyArray<A>, atMost: number): ReadonlyArray<A> {
    return all
      .map((value) => ({ value, order: this.next() }))
      .sort((a, b) => a.order - b.order)
      .slice(0, atMost)
      .map(({ value }) => value)
  }
}
