/** Memory that the kernel is given by address: it never moves, and lives as long as the thread. */
import { addressOf } from "../../linux/Syscalls.ts"

export interface Memory {
  readonly buffer: ArrayBuffer
  readonly address: number
}

/** An address keeps nothing alive: without this the collector frees what the kernel writes to. */
const kept: Array<ArrayBuffer> = []

export const memory = (bytes: number): Memory => {
  const buffer = new ArrayBuffer(bytes)
  kept.push(buffer)
  return { buffer, address: addressOf(buffer) }
}
