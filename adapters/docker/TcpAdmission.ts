/** Who is let in at a TCP port, by the address that a connection comes from and by the `Host` that a request names. */
import { X509Certificate } from "node:crypto"
import type * as Net from "node:net"
import { Result } from "effect"
import { type Address, isLoopback, isUnspecified, parseAddress } from "../../src/protocol/Address.ts"

export interface TcpAdmission {
  /** A connection that is not admitted is to be closed at once. */
  readonly admits: (socket: Net.Socket) => boolean
  readonly isOwnHost: (host: string) => boolean
}

/**
 * For a listener on `address`, asked for as `host`, that shows this certificate where it has TLS. A loopback address is reached
 * from elsewhere where `route_localnet` is set, by a rewritten destination: such a client's own address betrays it.
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
      // Of an address no name was resolved, and which ones an unspecified address stands for changes.
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
