/**
 * Inputs for decoders: a corpus with a few random changes each. Drawn from a seed, the same on every machine; fast
 * enough that the decoder takes most of the time.
 */

/** Marsaglia's xorshift32: of low quality, but fast and repeatable. */
class Random {
  #state: number

  constructor(seed: number) {
    this.#state = (seed ^ 0x9e3779b9) | 1
  }

  /** From 0 to `below`, exclusive. */
  upTo(below: number): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return (this.#state >>> 0) % Math.max(1, below)
  }
}

/** Endless. `words` are tokens that this kind of decoder looks for. */
export function* fuzzInputs(
  seed: number,
  corpus: ReadonlyArray<Uint8Array>,
  words: ReadonlyArray<Uint8Array> = []
): Generator<Uint8Array, never> {
  const random = new Random(seed)
  const any = <A>(all: ReadonlyArray<A>): A | undefined => all[random.upTo(all.length)]
  for (;;) {
    let bytes = any(corpus) ?? new Uint8Array()
    for (let changes = random.upTo(5); changes > 0; changes--) {
      const at = random.upTo(bytes.length + 1)
      const length = random.upTo(Math.min(64, bytes.length - at + 1))
      switch (random.upTo(6)) {
        case 0:
          bytes = spliced(bytes, at, 1, Uint8Array.of(random.upTo(256)))
          break
        case 1:
          bytes = spliced(bytes, at, 0, Uint8Array.of(random.upTo(256)))
          break
        case 2:
          bytes = spliced(bytes, at, length, new Uint8Array())
          break
        case 3:
          bytes = spliced(bytes, at, 0, bytes.slice(at, at + length))
          break
        case 4:
          bytes = spliced(bytes, at, length, any(words) ?? new Uint8Array())
          break
        case 5: {
          const other = any(corpus) ?? new Uint8Array()
          bytes = spliced(bytes, at, bytes.length - at, other.slice(random.upTo(other.length + 1)))
        }
      }
    }
    yield bytes.length > 65536 ? bytes.slice(0, 65536) : bytes
  }
}

const spliced = (bytes: Uint8Array, at: number, remove: number, insert: Uint8Array): Uint8Array => {
  const tail = bytes.subarray(Math.min(bytes.length, at + remove))
  const out = new Uint8Array(at + insert.length + tail.length)
  out.set(bytes.subarray(0, at))
  out.set(insert, at)
  out.set(tail, at + insert.length)
  return out
}
