/**
 * What the limits of a frontend have counted, in memory that the relay's threads share. No thread ever waits for
 * another, and one that dies leaves nothing behind but its open connections, which `forgetThread` takes back.
 */
import { randomInt } from "node:crypto"

/** The most threads that can share it. */
export const maxLimitingThreads = 63
/** In int32: how many are open, then how many of each thread. */
const openWords = 1 + maxLimitingThreads
const seedWord = openWords
/** In 64-bit words: where the time of the rate is, and where the sources begin, a hash and a time each. */
const rateAt = 40
const sourcesAt = 48
/** Sources in one group; the hash of a source chooses its group. */
const waysPerGroup = 8
const groups = 2048
/** The sources that one frontend remembers. */
export const sourcesKept = groups * waysPerGroup

const second = 1_000_000_000n

export const makeLimitState = (withSources: boolean): SharedArrayBuffer => {
  const state = new SharedArrayBuffer((sourcesAt + (withSources ? 2 * sourcesKept : 0)) * 8)
  new Int32Array(state)[seedWord] = randomInt(2 ** 31)
  return state
}

export const hasSources = (state: SharedArrayBuffer): boolean => state.byteLength > sourcesAt * 8

/** Takes back what a dead thread had open. */
export const forgetThread = (state: SharedArrayBuffer, thread: number): void => {
  const open = new Int32Array(state)
  Atomics.sub(open, 0, Atomics.exchange(open, 1 + thread, 0))
}

export class LimitState {
  private readonly words: Int32Array
  private readonly times: BigUint64Array
  private readonly thread: number
  private readonly nanoseconds: () => bigint

  /** `nanoseconds`: the monotonic time, the same for all threads. */
  constructor(state: SharedArrayBuffer, thread: number, nanoseconds: () => bigint) {
    this.words = new Int32Array(state)
    this.times = new BigUint64Array(state)
    this.thread = thread
    this.nanoseconds = nanoseconds
  }

  get open(): number {
    return Atomics.load(this.words, 0)
  }

  /** Counts one more as open if fewer than `most` are. */
  takePlace(most: number): boolean {
    for (let open = this.open; open < most; open = this.open)
      if (Atomics.compareExchange(this.words, 0, open, open + 1) === open) {
        Atomics.add(this.words, 1 + this.thread, 1)
        return true
      }
    return false
  }

  addPlaces(places: number): void {
    Atomics.add(this.words, 0, places)
    Atomics.add(this.words, 1 + this.thread, places)
  }

  takeOfRate(rate: number): boolean {
    return this.take(rateAt, rate)
  }

  /** For the address at `offset`. Of a full group, the source that was quiet for longest is forgotten. */
  takeOfSource(rate: number, bytes: Uint8Array, offset: number, length: number): boolean {
    const high = this.hash(bytes, offset, length, 0x9e3779b1)
    const low = this.hash(bytes, offset, length, 0x85ebca6b)
    // Never 0, which is an empty place.
    const source = (BigInt(high) << 32n) | BigInt((low | 1) >>> 0)
    const group = sourcesAt + (high & (groups - 1)) * 2 * waysPerGroup
    let place = group
    for (let at = group; at < group + 2 * waysPerGroup; at += 2) {
      if (Atomics.load(this.times, at) === source) return this.take(at + 1, rate)
      if (Atomics.load(this.times, at + 1) < Atomics.load(this.times, place + 1)) place = at
    }
    Atomics.store(this.times, place + 1, 0n)
    Atomics.store(this.times, place, source)
    return this.take(place + 1, rate)
  }

  /**
   * One number describes a bucket that holds one second's worth: the time at which it will be full again. Taking one
   * moves it by the interval of the rate, unless it would be more than a second away.
   */
  private take(at: number, rate: number): boolean {
    const now = this.nanoseconds()
    const interval = second / BigInt(rate)
    for (;;) {
      const full = Atomics.load(this.times, at)
      let next = full + interval
      if (full < now) next = now + interval
      if (next - now > second) return false
      if (Atomics.compareExchange(this.times, at, full, next) === full) return true
    }
  }

  /** Differs from frontend to frontend, so that no client can choose addresses that share a group. */
  private hash(bytes: Uint8Array, offset: number, length: number, factor: number): number {
    let mixed = (this.words[seedWord] ?? 0) ^ factor
    for (let index = 0; index < length; index++) {
      mixed = Math.imul(mixed ^ (bytes[offset + index] ?? 0), factor)
      mixed ^= mixed >>> 15
    }
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0xc2b2ae35)
    return (mixed ^ (mixed >>> 13)) >>> 0
  }
}
