/**
 * Socket filters: programs the kernel runs on every packet before a socket sees it, the handshake included.
 *
 * Written as classic BPF (Linux Documentation/networking/filter.rst) and loaded once for all sockets that share it
 * by bpf(2): a separate program for each socket costs 5 KB of kernel memory and 7 µs. Where the kernel refuses
 * bpf(2), as it does to users without privileges, each socket gets its own copy.
 */
import type { Address, Family } from "../../../src/protocol/Address.ts"
import { hostLittleEndian, type Libc, SO_ATTACH_BPF, SO_ATTACH_FILTER, SOL_SOCKET } from "../Libc.ts"

export interface SocketFilter {
  /** The kernel reads them: they stay in memory for as long as the filter does. */
  readonly instructions: Uint8Array
  /** Replaces the socket's filter, if it has one. The result is 0 or a negated `errno`. */
  readonly attach: (fd: number) => number
  readonly close: () => void
}

/** A classic instruction; a jump names the label of the instructions to continue at. */
interface Instruction {
  readonly code: number
  readonly operand: number
  readonly label?: string
  readonly jump?: { readonly equal: string; readonly other: string }
}

type Program = ReadonlyArray<Instruction>

const LOAD_WORD = 0x20
const LOAD_BYTE = 0x30
const AND = 0x54
const JUMP_IF_EQUAL = 0x15
const RETURN = 0x06

const networkHeader = -0x100000
/** `SKF_AD_IFINDEX`: the interface that the packet came in on. */
const interfaceIndex = -0x1000 + 8
/** Of `lo`, in every network namespace. */
const loopbackIndex = 1

const loadByte = (offset: number): Instruction => ({ code: LOAD_BYTE, operand: networkHeader + offset })
const loadWord = (offset: number): Instruction => ({ code: LOAD_WORD, operand: networkHeader + offset })
const and = (mask: number): Instruction => ({ code: AND, operand: mask | 0 })
const jump = (operand: number, equal: string, other: string): Instruction => ({
  code: JUMP_IF_EQUAL,
  operand: operand | 0,
  jump: { equal, other }
})
const at = (label: string, instruction: Instruction): Instruction => ({ ...instruction, label })
const drop: Instruction = { code: RETURN, operand: 0 }
const admit: Instruction = { code: RETURN, operand: -1 }

export const dropAll: Program = [drop]

/**
 * What `Ruleset` never redirects: sources 127.0.0.0/8, ::1, fe80::/10 and these backends, and what the host sends to
 * 127.0.0.0/8 and ::1. What another host sends there does not come in on `lo`.
 */
export const admitLocal = (family: Family, backends: ReadonlyArray<Address>): Program => [
  ...(family === 4 ? admitLocal4 : admitLocal6),
  at("interface", { code: LOAD_WORD, operand: interfaceIndex }),
  jump(loopbackIndex, "admit", "drop"),
  at("drop", drop),
  at("admit", admit),
  // Last, and each with its own end, since a jump is no longer than 255 instructions.
  ...backends.flatMap(({ octets }, index) =>
    admitAddress(octets, family === 4 ? 12 : 8, `backend ${index}`, `backend ${index + 1}`)
  ),
  at(`backend ${backends.length}`, drop)
]

const admitLocal4: Program = [
  loadByte(12),
  jump(127, "admit", "destination"),
  at("destination", loadByte(16)),
  jump(127, "interface", "backend 0")
]

const admitLocal6: Program = [
  loadWord(8),
  jump(0, "::", "not ::"),
  at("not ::", and(0xffc00000)),
  jump(0xfe800000, "admit", "destination"),
  at("::", loadWord(12)),
  jump(0, ":::", "destination"),
  at(":::", loadWord(16)),
  jump(0, "::::", "destination"),
  at("::::", loadWord(20)),
  jump(1, "admit", "destination"),
  at("destination", loadWord(24)),
  jump(0, "to ::", "backend 0"),
  at("to ::", loadWord(28)),
  jump(0, "to :::", "backend 0"),
  at("to :::", loadWord(32)),
  jump(0, "to ::::", "backend 0"),
  at("to ::::", loadWord(36)),
  jump(1, "interface", "backend 0")
]

/** Admits packets with this address at `offset`, and goes on at `next` with others. */
const admitAddress = (octets: Uint8Array, offset: number, label: string, next: string): Program => {
  const view = new DataView(octets.buffer, octets.byteOffset, octets.length)
  const words = octets.length / 4
  const place = (word: number) => (word === 0 ? label : `${label}, word ${word}`)
  return [
    ...Array.from({ length: words }, (_, word) => [
      at(place(word), loadWord(offset + word * 4)),
      jump(view.getUint32(word * 4), place(word + 1), next)
    ]).flat(),
    at(place(words), admit)
  ]
}

export const makeFilter = (libc: Libc, program: Program): SocketFilter => {
  const extended = extendedProgram(program)
  const shared = loadExtended(libc, extended)
  if (shared >= 0) {
    const option = new Uint8Array(4)
    new DataView(option.buffer).setInt32(0, shared, hostLittleEndian)
    return {
      instructions: extended,
      attach: (fd) => libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, option, 4),
      close: () => void libc.close(shared)
    }
  }
  const instructions = classicProgram(program)
  const option = new Uint8Array(16)
  const header = new DataView(option.buffer)
  header.setUint16(0, program.length, hostLittleEndian)
  header.setBigUint64(8, libc.addressOf(instructions), hostLittleEndian)
  return {
    instructions,
    attach: (fd) => libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, option, option.length),
    close: () => {}
  }
}

const classicProgram = (program: Program): Uint8Array => {
  const bytes = new Uint8Array(program.length * 8)
  const view = new DataView(bytes.buffer)
  const distance = (from: number, label: string) => indexOf(program, label) - from - 1
  program.forEach(({ code, operand, jump }, index) => {
    view.setUint16(index * 8, code, hostLittleEndian)
    view.setUint8(index * 8 + 2, jump === undefined ? 0 : distance(index, jump.equal))
    view.setUint8(index * 8 + 3, jump === undefined ? 0 : distance(index, jump.other))
    view.setInt32(index * 8 + 4, operand, hostLittleEndian)
  })
  return bytes
}

const BPF_PROG_LOAD = 5
const BPF_PROG_TYPE_SOCKET_FILTER = 1

const license = new TextEncoder().encode("Apache-2.0\0")

/** The file descriptor of the program, or a negated `errno`. */
const loadExtended = (libc: Libc, instructions: Uint8Array): number => {
  const length = instructions.length - license.length
  const address = libc.addressOf(instructions)
  const attributes = new Uint8Array(48)
  const view = new DataView(attributes.buffer)
  view.setUint32(0, BPF_PROG_TYPE_SOCKET_FILTER, hostLittleEndian)
  view.setUint32(4, length / 8, hostLittleEndian)
  view.setBigUint64(8, address, hostLittleEndian)
  view.setBigUint64(16, address + BigInt(length), hostLittleEndian)
  return libc.bpf(BPF_PROG_LOAD, attributes, attributes.length)
}

const MOVE_R1_TO_R6 = 0xbf
const MOVE_TO_R0 = 0xb4
const EXIT = 0x95
const GO_ON_IF_EQUAL = 0x16
const GO_ON = 0x05
const LOAD_FIELD_TO_R0 = 0x61
/** Of `ifindex` in `struct __sk_buff`. */
const offsetOfInterface = 40

/**
 * The same program for bpf(2) (Documentation/bpf/classic_vs_extended.rst): the packet is in R6, loads and
 * arithmetic use R0, and a comparison jumps only where it is true. Each instruction becomes two, after one that
 * saves the packet; the license follows them.
 */
const extendedProgram = (program: Program): Uint8Array => {
  const length = (1 + program.length * 2) * 8
  const bytes = new Uint8Array(length + license.length)
  bytes.set(license, length)
  const view = new DataView(bytes.buffer)
  const emit = (slot: number, code: number, operand: number, target = slot + 1) => {
    view.setUint8(slot * 8, code)
    view.setInt16(slot * 8 + 2, target - slot - 1, hostLittleEndian)
    view.setInt32(slot * 8 + 4, operand, hostLittleEndian)
  }
  const emitLoad = (slot: number) => {
    view.setUint8(slot * 8, LOAD_FIELD_TO_R0)
    view.setUint8(slot * 8 + 1, hostLittleEndian ? 0x60 : 0x06)
    view.setInt16(slot * 8 + 2, offsetOfInterface, hostLittleEndian)
  }
  emit(0, MOVE_R1_TO_R6, 0)
  view.setUint8(1, hostLittleEndian ? 0x16 : 0x61)
  const slotOf = (index: number) => 1 + index * 2
  program.forEach(({ code, operand, jump }, index) => {
    const slot = slotOf(index)
    if (code === RETURN) {
      emit(slot, MOVE_TO_R0, operand)
      emit(slot + 1, EXIT, 0)
    } else if (jump !== undefined) {
      emit(slot, GO_ON_IF_EQUAL, operand, slotOf(indexOf(program, jump.equal)))
      emit(slot + 1, GO_ON, 0, slotOf(indexOf(program, jump.other)))
    } else {
      if (operand === interfaceIndex) emitLoad(slot)
      else emit(slot, code, operand)
      emit(slot + 1, GO_ON, 0)
    }
  })
  return bytes
}

const indexOf = (program: Program, label: string): number =>
  program.findIndex((instruction) => instruction.label === label)
