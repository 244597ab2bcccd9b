import { assert, describe, it } from "@effect/vitest"
import { admitLocal, dropAll } from "../../../adapters/linux/sockets/SocketFilter.ts"
import { type Address, addressUnsafe } from "../../../src/protocol/Address.ts"

interface Packet {
  readonly source: string
  readonly destination: string
  /** Index of the interface that it came in on; 1 is `lo`. */
  readonly interface?: number
}

/** The network header, of which the program reads the addresses alone. */
const headerOf = ({ source, destination }: Packet): DataView => {
  const [from, to] = [addressUnsafe(source), addressUnsafe(destination)]
  const header = new Uint8Array(40)
  header.set(from.octets, from.family === 4 ? 12 : 8)
  header.set(to.octets, from.family === 4 ? 16 : 24)
  return new DataView(header.buffer)
}

const networkHeader = -0x100000
const wordsOf = ({ octets }: Address) => {
  const view = new DataView(octets.buffer, octets.byteOffset)
  return Array.from({ length: octets.length / 4 }, (_, word) => view.getInt32(word * 4))
}

/** Runs the program as the kernel would. Returns whether it admits the packet. */
const admits = (
  program: ReturnType<typeof admitLocal>,
  packet: Packet,
  backends: ReadonlyArray<Address> = []
) => {
  const header = headerOf(packet)
  const words = backends.flatMap(wordsOf)
  const indexOf = (label: string) => {
    const index = program.findIndex((instruction) => instruction.label === label)
    if (index < 0) throw new Error(`no label ${label}`)
    return index
  }
  let accumulator = 0
  for (let at = 0; ; at++) {
    const instruction = program[at]
    if (instruction === undefined) throw new Error("the program has no end")
    const { code, operand, word, jump } = instruction
    if (jump !== undefined) {
      const to = indexOf(
        accumulator === (word === undefined ? operand : words[word]) ? jump.equal : jump.other
      )
      assert.isAbove(to, at)
      assert.isAtMost(to - at - 1, 255)
      at = to - 1
    } else if (code === 0x06) return operand !== 0
    else if (code === 0x54) accumulator &= operand
    else if (operand > networkHeader + 1000) accumulator = packet.interface ?? 2
    else
      accumulator =
        code === 0x30 ? header.getUint8(operand - networkHeader) : header.getInt32(operand - networkHeader)
  }
}

const at4 = { source: "203.0.113.7", destination: "192.0.2.1" }
const at6 = { source: "2001:db8::7", destination: "2001:db8::1" }

describe("a socket filter", () => {
  it("drops every packet of a placeholder", () => {
    for (const packet of [at4, { ...at4, source: "127.0.0.1", interface: 1 }])
      assert.isFalse(admits(dropAll, packet))
  })

  it("admits what is from loopback, or from a link-local address of IPv6", () => {
    for (const [packet, admitted] of [
      [{ ...at4, source: "127.0.0.1" }, true],
      [{ ...at4, source: "127.255.0.9" }, true],
      [at4, false],
      [{ ...at4, source: "126.0.0.1" }, false]
    ] as const)
      assert.strictEqual(admits(admitLocal(4, 0), packet), admitted, packet.source)
    for (const [source, admitted] of [
      ["::1", true],
      ["fe80::1", true],
      ["febf::1", true],
      ["fec0::1", false],
      ["::2", false],
      ["::1:0:1", false],
      ["0:0:0:1::1", false],
      ["2001:db8::7", false]
    ] as const)
      assert.strictEqual(admits(admitLocal(6, 0), { ...at6, source }), admitted, source)
  })

  it("admits what is to loopback only from this host, whatever address it is from", () => {
    for (const [packet, family] of [
      [{ ...at4, destination: "127.0.0.1" }, 4],
      [{ ...at6, destination: "::1" }, 6]
    ] as const) {
      assert.isTrue(admits(admitLocal(family, 0), { ...packet, interface: 1 }))
      assert.isFalse(admits(admitLocal(family, 0), { ...packet, interface: 2 }))
    }
  })

  it("admits what is from one of the backends, however many they are", () => {
    for (const [family, prefix, packet] of [
      [4, "172.17.0.", at4],
      [6, "fd00::", at6]
    ] as const) {
      const backends = Array.from({ length: 100 }, (_, index) => addressUnsafe(`${prefix}${index + 2}`))
      const program = admitLocal(family, backends.length)
      for (const { text } of backends)
        assert.isTrue(admits(program, { ...packet, source: text }, backends), text)
      assert.isFalse(admits(program, { ...packet, source: `${prefix}1` }, backends))
      assert.isFalse(admits(program, packet, backends))
    }
  })
})
