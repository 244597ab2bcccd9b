import { assert, describe, it } from "@effect/vitest"
import {
  errnoOf,
  findAttribute,
  findNested,
  MessageWriter,
  NLM_F_ACK,
  NLM_F_REQUEST,
  netfilterHeaderLength,
  readMessages
} from "../../../adapters/linux/netlink/NetlinkMessage.ts"

/** Two messages, the first with an attribute of each kind. */
const written = () => {
  const writer = new MessageWriter()
  writer.begin(0x0a0c, NLM_F_ACK, 7, 1, 0x1234)
  writer.string(1, "portmapper")
  writer.uint8(2, 0x12)
  writer.uint16(3, 0x1234)
  writer.uint32(4, 0x12345678)
  writer.uint64(5, 0x1_0000_0001)
  const outer = writer.beginNested(6)
  const inner = writer.beginNested(1)
  writer.attribute(2, Uint8Array.of(1, 2, 3))
  writer.endNested(inner)
  writer.endNested(outer)
  writer.end()
  writer.begin(0x0a00, 0, 8, 2)
  writer.end()
  return writer
}
const bytesOf = ({ bytes, length }: MessageWriter) => bytes.slice(0, length)

describe("netlink messages", () => {
  it("are read as they were written, numbers in network order", () => {
    const [first, second, ...rest] = [...readMessages(bytesOf(written()))]
    if (first === undefined || second === undefined) throw new Error("two messages were written")
    assert.deepStrictEqual(
      [first, second].map(({ type, flags, sequence }) => [type, flags, sequence]),
      [
        [0x0a0c, NLM_F_ACK | NLM_F_REQUEST, 7],
        [0x0a00, NLM_F_REQUEST, 8]
      ]
    )
    assert.deepStrictEqual(rest, [])
    assert.deepStrictEqual([...first.body.subarray(0, 4)], [1, 0, 0x12, 0x34])
    const attribute = (type: number) => [...(findAttribute(first.body, netfilterHeaderLength, type) ?? [])]
    assert.strictEqual(String.fromCharCode(...attribute(1)), "portmapper\0")
    assert.deepStrictEqual([2, 3, 4].map(attribute), [[0x12], [0x12, 0x34], [0x12, 0x34, 0x56, 0x78]])
    assert.deepStrictEqual(attribute(5), [0, 0, 0, 1, 0, 0, 0, 1])
    assert.deepStrictEqual(
      [...(findNested(first.body.subarray(netfilterHeaderLength), 6, 1, 2) ?? [])],
      [1, 2, 3]
    )
    assert.strictEqual(findAttribute(first.body, netfilterHeaderLength, 9), undefined)
    assert.strictEqual(findNested(first.body.subarray(netfilterHeaderLength), 6, 9, 2), undefined)
  })

  it("are padded with zeros, also in a buffer that had other bytes", () => {
    const writer = written()
    writer.clear()
    writer.begin(1, 0, 1, 1)
    writer.attribute(1, Uint8Array.of(0xff))
    writer.end()
    assert.deepStrictEqual([...bytesOf(writer).subarray(20)], [5, 0, 1, 0, 0xff, 0, 0, 0])
  })

  it("may be longer than the first buffer", () => {
    const writer = new MessageWriter()
    writer.begin(1, 0, 1, 1)
    writer.attribute(1, new Uint8Array(60_000).fill(7))
    writer.end()
    const [message] = [...readMessages(bytesOf(writer))]
    assert.strictEqual(findAttribute(message?.body ?? new Uint8Array(), netfilterHeaderLength, 1)?.at(-1), 7)
  })

  it("end where one is cut short or too short to be one", () => {
    const bytes = bytesOf(written())
    for (let length = 0; length < bytes.length; length++)
      assert.isBelow([...readMessages(bytes.subarray(0, length))].length, 2)
    assert.deepStrictEqual([...readMessages(new Uint8Array(64))], [])
  })

  it("of an error have the kernel's errno, and none where it is cut short", () => {
    const message = (value: number) => ({
      ...{ type: 2, flags: 0, sequence: 1, portId: 0 },
      body: new Uint8Array(Int32Array.of(value).buffer)
    })
    assert.deepStrictEqual([errnoOf(message(-17)), errnoOf(message(-4))], [17, 4])
    assert.strictEqual(errnoOf({ ...message(0), body: new Uint8Array(2) }), 0)
  })
})
