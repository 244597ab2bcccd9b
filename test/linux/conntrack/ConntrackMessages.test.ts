import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import {
  flowsAnsweredBy,
  flowsOfStatus,
  flowsTo,
  IPS_DST_NAT,
  NFNL_SUBSYS_CTNETLINK,
  nameOf,
  readFlow,
  writeDelete
} from "../../../adapters/linux/conntrack/ConntrackMessages.ts"
import { libc } from "../../../adapters/linux/Libc.ts"
import { NETLINK_NETFILTER, openNetlink, type Request } from "../../../adapters/linux/netlink/Netlink.ts"
import { MessageWriter, readMessages } from "../../../adapters/linux/netlink/NetlinkMessage.ts"
import { addressUnsafe } from "../../../src/protocol/Address.ts"
import { describeInNamespace, run } from "../../lab/ThreadNamespace.ts"
import { createFlows, flow } from "../flows.ts"

const octets = (text: string) => addressUnsafe(text).octets

describeInNamespace("a request for flows", () => {
  const netlink = Result.getOrThrow(openNetlink(libc(), NETLINK_NETFILTER))
  /** The source ports of the flows that the kernel returns, which filters them by tuple and status. */
  const found = (request: Request) =>
    Result.getOrThrow(netlink.dump(request))
      .flatMap((message) => readFlow(message)?.original.sourcePort ?? [])
      .sort()
  createFlows([
    flow("udp 10.1.0.2:5000 192.0.2.1:53"),
    flow("udp 10.1.0.2:5001 192.0.2.1:54"),
    flow("udp 10.1.0.2:5002 192.0.2.9:53 10.0.0.2:5353"),
    flow("tcp 10.1.0.2:5003 192.0.2.1:53 10.0.0.2:80"),
    flow("udp [2001:db8::2]:5004 [2001:db8::1]:53"),
    flow("udp [2001:db8::2]:5005 [2001:db8::9]:53 [fd00::2]:5353")
  ])

  it("finds those of a family, protocol and port, and of IPv4 those to one address", () => {
    assert.deepStrictEqual(found(flowsTo(2, 17, 53, undefined)), [5000, 5002])
    assert.deepStrictEqual(found(flowsTo(2, 17, 53, octets("192.0.2.9"))), [5002])
    assert.deepStrictEqual(found(flowsTo(2, 17, undefined, octets("192.0.2.1"))), [5000, 5001])
    assert.deepStrictEqual(found(flowsTo(2, 6, 53, undefined)), [5003])
    // The caller compares addresses of IPv6.
    assert.deepStrictEqual(found(flowsTo(10, 17, 53, octets("2001:db8::9"))), [5004, 5005])
  })

  it("finds those that a backend answers, and those that were redirected", () => {
    assert.deepStrictEqual(found(flowsAnsweredBy(2, 17, octets("10.0.0.2"))), [5002])
    assert.deepStrictEqual(found(flowsAnsweredBy(2, 6, octets("10.0.0.2"))), [5003])
    assert.deepStrictEqual(found(flowsOfStatus(IPS_DST_NAT, IPS_DST_NAT)), [5002, 5003, 5005])
  })

  it("deletes the flow with the name that it read, not one of another zone", () => {
    run("conntrack -F")
    createFlows([flow("udp 10.1.0.2:5000 192.0.2.1:53"), flow("udp 10.1.0.2:5000 192.0.2.1:53", { zone: 7 })])
    const names = Result.getOrThrow(netlink.dump(flowsTo(2, 17, 53, undefined))).map(nameOf)
    const zoned = names.filter(({ attributes }) => attributes.length === 3)
    assert.deepStrictEqual([names.length, zoned.length], [2, 1])
    const [name] = zoned
    if (name !== undefined) netlink.series(NFNL_SUBSYS_CTNETLINK, (series) => writeDelete(series, name))
    const left = Result.getOrThrow(netlink.dump(flowsTo(2, 17, 53, undefined))).map(nameOf)
    assert.deepStrictEqual(
      left,
      names.filter((one) => one !== name)
    )
  })
}, ["conntrack"])

describe("a flow that is read", () => {
  const read = (write: (writer: MessageWriter) => void) => {
    const writer = new MessageWriter()
    writer.begin(0x100, 0, 1, 2)
    write(writer)
    writer.end()
    const [message] = readMessages(writer.bytes.subarray(0, writer.length))
    return readFlow(message ?? assert.fail("no message"))
  }
  const nested = (writer: MessageWriter, types: ReadonlyArray<number>, write: () => void) => {
    const starts = types.map((type) => writer.beginNested(type))
    write()
    for (const start of starts.reverse()) writer.endNested(start)
  }
  const ports = (writer: MessageWriter) =>
    nested(writer, [1, 2], () => {
      writer.uint8(1, 6)
      writer.uint16(2, 5000)
      writer.uint16(3, 80)
    })

  it("is none without ports, as of ICMP", () => {
    assert.isUndefined(read((writer) => nested(writer, [1, 2], () => writer.uint8(1, 1))))
    assert.deepInclude(read(ports)?.original, { protocol: 6, sourcePort: 5000, destinationPort: 80 })
  })

  it("is closed once both ends of a TCP connection have closed it, or one has reset it", () => {
    const inState = (state: number) =>
      read((writer) => {
        ports(writer)
        nested(writer, [4, 1], () => writer.uint8(1, state))
      })
    // ESTABLISHED, CLOSE_WAIT; LAST_ACK, TIME_WAIT, CLOSE.
    const flows = [3, 5, 6, 7, 8].map(inState)
    assert.deepStrictEqual(
      flows.map((flow) => flow?.isClosed),
      [false, false, true, true, true]
    )
    assert.deepStrictEqual(
      flows.map((flow) => flow?.isReset),
      [false, false, false, false, true]
    )
  })

  it("has counts beyond 32 bits, and none where the kernel does not count", () => {
    const flowed = read((writer) => {
      ports(writer)
      nested(writer, [9], () => writer.uint64(2, 2 ** 40 + 1))
    })
    assert.deepStrictEqual([flowed?.bytesIn, flowed?.bytesOut], [2 ** 40 + 1, 0])
  })
})
