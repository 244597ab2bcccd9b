/** Frontends as the model sees them: which address a text means, and which two frontends conflict. */
import {
  type Address,
  addressUnsafe,
  hostText,
  isLoopback,
  isUnspecified,
  unspecified
} from "../protocol/Address.ts"

export interface Frontend {
  readonly proto: number
  /** The address that the text means: equal keys are equal addresses. */
  readonly key: string
  readonly family: 4 | 6
  readonly any: boolean
  readonly loopback: boolean
  readonly zoned: boolean
}

/** PROTOCOL, rule 6; the caller compares the ports. */
export const conflict = (one: Frontend, other: Frontend): boolean =>
  one.proto === other.proto && one.family === other.family && (one.key === other.key || one.any || other.any)

/** A missing address means the unspecified one of the backend's family. */
export const frontend = (proto: number, ip: string, backendIp = "0.0.0.0"): Frontend => {
  const known = frontends.get(`${proto} ${ip} ${backendIp}`)
  if (known !== undefined) return known
  const address = ip === "" ? unspecified(addressOf(backendIp).family) : addressOf(ip)
  const made: Frontend = {
    proto,
    key: address.key,
    family: address.family,
    any: isUnspecified(address),
    loopback: isLoopback(address),
    zoned: address.zone !== ""
  }
  if (frontends.size > 4096) frontends.clear()
  frontends.set(`${proto} ${ip} ${backendIp}`, made)
  return made
}

export const protocols: Readonly<Record<number, string>> = { 6: "tcp", 17: "udp", 132: "sctp" }

export const frontendTextOf = (at: {
  readonly proto: number
  readonly key: string
  readonly port: number
}): string => `${hostText(addressOf(at.key))}:${at.port}/${protocols[at.proto]}`

export const endpointTextOf = (ip: string, port: number): string =>
  `${hostText(addressOf(addressOf(ip).key))}:${port}`

const frontends = new Map<string, Frontend>()
const addresses = new Map<string, Address>()

export const addressOf = (text: string): Address => {
  const known = addresses.get(text)
  if (known !== undefined) return known
  const made = addressUnsafe(text)
  if (addresses.size > 4096) addresses.clear()
  addresses.set(text, made)
  return made
}
