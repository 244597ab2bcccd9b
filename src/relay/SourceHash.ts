/**
 * The hash by which a service picks a client's backend: Bob Jenkins' `jhash` of lookup3.c, as the kernel computes it
 * (include/linux/jhash.h), so that the kernel and the relay send a client to the same backend.
 */

/** Never changes: another seed would send nearly every client to another backend. */
export const sourceSeed = 0x706d6170

/** The slot of a source address of 4 or 16 bytes, at `offset`. */
export const slotOfSource = (bytes: Uint8Array, offset: number, length: number, size: number): number =>
  // As `reciprocal_scale` of the kernel: the upper half of the product of two 32-bit numbers.
  Math.floor((jhash(bytes, offset, length, sourceSeed) * size) / 2 ** 32)

const initial = 0xdeadbeef

const rotate = (word: number, bits: number): number => (word << bits) | (word >>> (32 - bits))

/** An unsigned 32-bit number. */
export const jhash = (bytes: Uint8Array, offset: number, length: number, seed: number): number => {
  let a = (initial + length + seed) | 0
  let b = a
  let c = a
  let at = offset
  let left = length
  const word = (from: number): number => {
    let value = 0
    for (let index = Math.min(4, left - (from - at)) - 1; index >= 0; index--)
      value = (value << 8) | (bytes[from + index] ?? 0)
    return value
  }
  for (; left > 12; left -= 12, at += 12) {
    a = (a + word(at)) | 0
    b = (b + word(at + 4)) | 0
    c = (c + word(at + 8)) | 0
    a = (a - c) ^ rotate(c, 4)
    c = (c + b) | 0
    b = (b - a) ^ rotate(a, 6)
    a = (a + c) | 0
    c = (c - b) ^ rotate(b, 8)
    b = (b + a) | 0
    a = (a - c) ^ rotate(c, 16)
    c = (c + b) | 0
    b = (b - a) ^ rotate(a, 19)
    a = (a + c) | 0
    c = (c - b) ^ rotate(b, 4)
    b = (b + a) | 0
  }
  if (left === 0) return c >>> 0
  if (left > 8) c = (c + word(at + 8)) | 0
  if (left > 4) b = (b + word(at + 4)) | 0
  a = (a + word(at)) | 0
  c = ((c ^ b) - rotate(b, 14)) | 0
  a = ((a ^ c) - rotate(c, 11)) | 0
  b = ((b ^ a) - rotate(a, 25)) | 0
  c = ((c ^ b) - rotate(b, 16)) | 0
  a = ((a ^ c) - rotate(c, 4)) | 0
  b = ((b ^ a) - rotate(a, 14)) | 0
  c = ((c ^ b) - rotate(b, 24)) | 0
  return c >>> 0
}
