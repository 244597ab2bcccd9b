/**
 * The address of a container that has none, since it does not run: one of 100::/64, to which no packet is sent
 * (RFC 6666).
 */
import { type Address, addressUnsafe } from "./Address.ts"

export const restingPlace = (id: string): Address =>
  addressUnsafe(`100::${id.slice(0, 16).replace(/(.{4})(?=.)/g, "$1:")}`)

/** Its container, in place of the address. */
export const asleepText = (container = "a container"): string => `${container} (asleep)`

export const isRestingPlace = ({ family, octets }: Pick<Address, "family" | "octets">): boolean =>
  family === 6 && octets[0] === 1 && octets.subarray(1, 8).every((octet) => octet === 0)
