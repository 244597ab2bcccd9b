/** Who is admitted at a TCP port: by a connection's source address and by a request's `Host`. */
import { X509Certificate } from "node:crypto"
import type * as Net from "node:net"
import { Result } from "effect"
import { type Address, isLoopback, isUnspecified, parseAddress } from "../../src/protocol/Address.ts"

export interface TcpAdmission {
  /** The caller closes a connection that is not admitted at once. */
  readonly admits: (socket: Net.Socket) => boolean
  readonly isOwnHost: (host: string) => boolean
}

/**
 * For a listener on `address`, requested as `host`, with this certificate if it has TLS. With `route_localnet` set,
 * other hosts can reach a loopback address by a rewritten destination; their source address gives them away.
 */
export const tcpAdmission = (
  host: string,
  address: string,
  certificate: (() => string) | undefined
): TcpAdmission => {
  const listening = addressOf(address)
  const names = new Set(["localhost", "plugin.moby.localhost", host.toLowerCase()])
  return {
    admits: ({ remoteAddress = "" }) =>
      listening === undefined || !isLoopback(listening) || isLoopbackText(remoteAddress),
    isOwnHost: (text) => {
      const bare = text.replace(/^\[(.*)\]$/, "$1").toLowerCase()
      const asked = addressOf(bare)
      // For an address no name was resolved, and the addresses behind an unspecified one change.
      if (asked !== undefined)
        return (
          isLoopback(asked) ||
          (listening !== undefined && (isUnspecified(listening) || listening.key === asked.key))
        )
      if (names.has(bare)) return true
      return certificate !== undefined && new X509Certificate(certificate()).checkHost(bare) !== undefined
    }
  }
}

const addressOf = (text: string): Address | undefined => Result.getOrUndefined(parseAddress(text))

const isLoopbackText = (text: string): boolean => {
  const address = addressOf(text)
  return address !== undefined && isLoopback(address)
}
