/**
 * Socket filters: programs the kernel runs on every packet before a socket sees it, the handshake included.
 *
 * Written as classic BPF (Linux Documentation/networking/filter.rst), and loaded once for many sockets by bpf(2).
 * Where the kernel refuses that, as it does to users without privileges, each socket gets a copy.
 */
import type { Address, Family } from "../../../src/protocol/Address.ts"
import { hostLittleEndian, type Libc, SO_ATTACH_BPF, SO_ATTACH_FILTER, SOL_SOCKET } from "../Libc.ts"

export type SocketFilter = ReturnType<typeof makeFilter>

/** A classic instruction; a jump names the label of the instructions to continue at. */
interface Instruction {
  readonly code: number
  /** If `word` is given, that word of the backends' addresses instead. */
  readonly operand: number
  readonly word?: number
  readonly label?: string
  readonly jump?: { readonly equal: string; readonly other: string }
}

type Instructions = ReadonlyArray<Instruction>

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

export const dropAll: Instructions = [drop]

/**
 * What `Ruleset` never redirects: sources 127.0.0.0/8, ::1, fe80::/10 and the backends, and what the host sends to
 * 127.0.0.0/8 and ::1. What another host sends there does not come in on `lo`.
 */
export const admitLocal = (family: Family, backends: number): Instructions => [
  ...(family === 4 ? admitLocal4 : admitLocal6),
  at("interface", { code: LOAD_WORD, operand: interfaceIndex }),
  jump(loopbackIndex, "admit", "drop"),
  at("drop", drop),
  at("admit", admit),
  // Last, and each with its own end, since a jump is no longer than 255 instructions.
  ...Array.from({ length: backends }, (_, index) => admitBackend(family, index)).flat(),
  at(`backend ${backends}`, drop)
]

const admitLocal4: Instructions = [
  loadByte(12),
  jump(127, "admit", "destination"),
  at("destination", loadByte(16)),
  jump(127, "interface", "backend 0")
]

const admitLocal6: Instructions = [
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

const admitBackend = (family: Family, index: number): Instructions => {
  const words = family === 4 ? 1 : 4
  const label = (word: number) => (word === 0 ? `backend ${index}` : `backend ${index}, word ${word}`)
  return [
    ...Array.from({ length: words }, (_, word) => [
      at(label(word), loadWord((family === 4 ? 12 : 8) + word * 4)),
      { ...jump(0, label(word + 1), `backend ${index + 1}`), word: index * words + word }
    ]).flat(),
    at(label(words), admit)
  ]
}

/** Instructions that the kernel reads where they are, and where the backends' words go in them. */
interface Code {
  readonly view: DataView
  readonly address: bigint
  readonly words: ReadonlyArray<readonly [offset: number, word: number]>
}

/** The same program twice; `option` is the `struct sock_fprog` of the classic one: its length and its address. */
export interface Program {
  readonly classic: Code
  readonly option: Uint8Array
  readonly extended: Code
}

export const compile = (libc: Libc, instructions: Instructions): Program => {
  const classic = compiled(libc, instructions, classicCode(instructions), (index) => index)
  const option = new Uint8Array(16)
  const header = new DataView(option.buffer)
  header.setUint16(0, instructions.length, hostLittleEndian)
  header.setBigUint64(8, classic.address, hostLittleEndian)
  return { classic, option, extended: compiled(libc, instructions, extendedCode(instructions), slotOf) }
}

const compiled = (
  libc: Libc,
  instructions: Instructions,
  view: DataView,
  place: (index: number) => number
): Code => ({
  view,
  address: libc.addressOf(new Uint8Array(view.buffer)),
  words: instructions.flatMap(({ word }, index) =>
    word === undefined ? [] : [[place(index) * 8 + 4, word] as const]
  )
})

/** The most instructions of a classic program (`BPF_MAXINSNS`), which are those of 450 IPv6 backends. */
const longestClassic = 4096

/**
 * The program with the addresses of as many backends as it was made for. The first `copies` sockets get one each: a
 * copy takes 10 µs and 5 KB of kernel memory, loading a program by bpf(2) 50 to 100 µs, and sharing it 1 µs.
 */
export const makeFilter = (
  libc: Libc,
  { classic, option, extended }: Program,
  copies: number,
  backends: ReadonlyArray<Address> = []
) => {
  const words = backends.flatMap(wordsOf)
  const isTooLong = classic.view.byteLength / 8 > longestClassic
  let attached = 0
  /** A file descriptor, once there is one. */
  let shared: Int32Array | undefined
  const share = () => {
    fill(extended, words)
    const fd = load(libc, extended)
    if (fd >= 0) shared = Int32Array.of(fd)
  }
  return {
    /** Replaces the socket's filter, if it has one. The result is 0 or a negated `errno`. */
    attach: (fd: number) => {
      if ((++attached > copies || isTooLong) && shared === undefined) share()
      if (shared !== undefined)
        return libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, new Uint8Array(shared.buffer), 4)
      fill(classic, words)
      return libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, option, option.length)
    },
    close: () => {
      for (const fd of shared ?? []) libc.close(fd)
    }
  }
}

const wordsOf = ({ octets }: Address): ReadonlyArray<number> => {
  const view = new DataView(octets.buffer, octets.byteOffset, octets.length)
  return Array.from({ length: octets.length / 4 }, (_, word) => view.getUint32(word * 4))
}

const fill = ({ view, words }: Code, values: ReadonlyArray<number>): void => {
  for (const [offset, word] of words) view.setUint32(offset, values[word] ?? 0, hostLittleEndian)
}

const classicCode = (instructions: Instructions): DataView => {
  const view = new DataView(new ArrayBuffer(instructions.length * 8))
  const distance = (from: number, label: string) => indexOf(instructions, label) - from - 1
  instructions.forEach(({ code, operand, jump }, index) => {
    view.setUint16(index * 8, code, hostLittleEndian)
    view.setUint8(index * 8 + 2, jump === undefined ? 0 : distance(index, jump.equal))
    view.setUint8(index * 8 + 3, jump === undefined ? 0 : distance(index, jump.other))
    view.setInt32(index * 8 + 4, operand, hostLittleEndian)
  })
  return view
}

const BPF_PROG_LOAD = 5
const BPF_PROG_TYPE_SOCKET_FILTER = 1

const license = new TextEncoder().encode("Apache-2.0\0")

/** The file descriptor of the program, or a negated `errno`. */
const load = (libc: Libc, { view: { byteLength }, address }: Code): number => {
  const length = byteLength - license.length
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

const slotOf = (index: number) => 1 + index * 2

/**
 * The same program for bpf(2) (Documentation/bpf/classic_vs_extended.rst): the packet is in R6, loads and
 * arithmetic use R0, and a comparison jumps only where it is true. Each instruction becomes two, after one that
 * saves the packet; the license follows them.
 */
const extendedCode = (instructions: Instructions): DataView => {
  const length = slotOf(instructions.length) * 8
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
  instructions.forEach(({ code, operand, jump }, index) => {
    const slot = slotOf(index)
    if (code === RETURN) {
      emit(slot, MOVE_TO_R0, operand)
      emit(slot + 1, EXIT, 0)
    } else if (jump !== undefined) {
      emit(slot, GO_ON_IF_EQUAL, operand, slotOf(indexOf(instructions, jump.equal)))
      emit(slot + 1, GO_ON, 0, slotOf(indexOf(instructions, jump.other)))
    } else {
      if (operand === interfaceIndex) emitLoad(slot)
      else emit(slot, code, operand)
      emit(slot + 1, GO_ON, 0)
    }
  })
  return view
}

const indexOf = (instructions: Instructions, label: string): number =>
  instructions.findIndex((instruction) => instruction.label === label)
