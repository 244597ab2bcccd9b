/**
 * This kernel as one before 6.9, which has no table flag PERSIST, or before 5.12, which has no OWNER either:
 * replaces these flags by one that no kernel knows, so that the refusal is the kernel's own.
 */
import type { Libc } from "../../adapters/linux/Libc.ts"
import {
  eachAttribute,
  netfilterHeaderLength,
  readMessages
} from "../../adapters/linux/netlink/NetlinkMessage.ts"
import { NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST } from "../../adapters/linux/nft/NftMessages.ts"

export type OlderKernel = "before 6.9" | "before 5.12"

const newTable = 10 << 8
const flagsOfTable = 2
const unknownFlag = 0x80

export const olderKernel = (libc: Libc, kernel: OlderKernel = "before 6.9"): Libc => ({
  ...libc,
  send: (fd, bytes, length, flags) => {
    const lacking = NFT_TABLE_F_PERSIST | (kernel === "before 5.12" ? NFT_TABLE_F_OWNER : 0)
    for (const { type, body } of readMessages(bytes.subarray(0, length)))
      if (type === newTable)
        eachAttribute(body, netfilterHeaderLength, (attribute, payload) => {
          if (attribute === flagsOfTable && ((payload[3] ?? 0) & lacking) !== 0) payload[3] = unknownFlag
        })
    return libc.send(fd, bytes, length, flags)
  }
})

export const sendsNewTable = (bytes: Uint8Array, length: number): boolean => {
  for (const { type } of readMessages(bytes.subarray(0, length))) if (type === newTable) return true
  return false
}
