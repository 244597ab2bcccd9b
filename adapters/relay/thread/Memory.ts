/** Memory whose address the kernel gets: it never moves, and lives as long as the thread. */
import { addressOf } from "../../linux/Syscalls.ts"

export interface Memory {
  readonly buffer: ArrayBuffer
  readonly address: number
}

/**
 * An address does not keep memory alive: without this list the collector would free buffers that the kernel writes
 * to.
 */
const kept: Array<ArrayBuffer> = []

export const memory = (bytes: number): Memory => {
  const buffer = new ArrayBuffer(bytes)
  kept.push(buffer)
  return { buffer, address: addressOf(buffer) }
}
