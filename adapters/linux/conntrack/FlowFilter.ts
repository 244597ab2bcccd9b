/**
 * A socket filter for conntrack's events: of all flows that end on the host, only redirected ones wake the process.
 * Classic BPF (Linux Documentation/networking/filter.rst), whose extension finds an attribute of a message.
 */

import { hostLittleEndian, type Libc, SO_ATTACH_FILTER, SOL_SOCKET } from "../Libc.ts"
import { headerLength, netfilterHeaderLength } from "../netlink/NetlinkMessage.ts"
import { CTA_STATUS, IPS_DST_NAT } from "./ConntrackMessages.ts"

const LOAD = 0x00
const LOAD_INDEX = 0x01
const LOAD_ABSOLUTE = 0x20
const LOAD_INDEXED = 0x40
const INDEX_FROM_ACCUMULATOR = 0x07
const JUMP_IF_EQUAL = 0x15
const JUMP_IF_SET = 0x45
const RETURN = 0x06
/** Loads the offset of the attribute of type X, searching from the offset in A; 0 if there is none. */
const findAttribute = -0x1000 + 12
const attributeHeader = 4

const redirectedOnly: ReadonlyArray<
  readonly [code: number, whenTrue: number, whenFalse: number, operand: number]
> = [
  [LOAD, 0, 0, headerLength + netfilterHeaderLength],
  [LOAD_INDEX, 0, 0, CTA_STATUS],
  [LOAD_ABSOLUTE, 0, 0, findAttribute],
  [JUMP_IF_EQUAL, 4, 0, 0],
  [INDEX_FROM_ACCUMULATOR, 0, 0, 0],
  [LOAD_INDEXED, 0, 0, attributeHeader],
  [JUMP_IF_SET, 0, 1, IPS_DST_NAT],
  [RETURN, 0, 0, -1],
  [RETURN, 0, 0, 0]
]

/** 0, or a negated `errno`. */
export const attachFlowFilter = (libc: Libc, fd: number): number => {
  const program = new Uint8Array(redirectedOnly.length * 8)
  const view = new DataView(program.buffer)
  redirectedOnly.forEach(([code, whenTrue, whenFalse, operand], index) => {
    view.setUint16(index * 8, code, hostLittleEndian)
    view.setUint8(index * 8 + 2, whenTrue)
    view.setUint8(index * 8 + 3, whenFalse)
    view.setInt32(index * 8 + 4, operand, hostLittleEndian)
  })
  const option = new Uint8Array(16)
  const header = new DataView(option.buffer)
  header.setUint16(0, redirectedOnly.length, hostLittleEndian)
  header.setBigUint64(8, libc.pin(program), hostLittleEndian)
  return libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, option, option.length)
}
