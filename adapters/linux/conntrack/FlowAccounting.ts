/**
 * Adds up the bytes of flows from two sources that overlap: dumps of live flows, and a message for each flow that
 * ends. Pure: it counts what both report once, in whatever order it comes, and a sum never falls.
 */
import type { Mutable } from "effect/Types"
import type { Bytes, Redirected } from "../../../src/firewall/ByteCounter.ts"
import { isUnspecified } from "../../../src/protocol/Address.ts"
import { protocolNumber } from "../../../src/protocol/Protocol.ts"
import type { Flow } from "./ConntrackMessages.ts"

export interface FlowAccounting {
  /** A dump begins. */
  readonly begin: () => void
  /** The dump contains this flow. */
  readonly seen: (flow: Flow) => void
  /**
   * The dump is over. Every end that came before its last part must have been passed to `ended`: the accounting no
   * longer tracks a flow that the dump lacks.
   */
  readonly finish: () => void
  /** This flow ended, with these totals. */
  readonly ended: (flow: Flow) => void
  readonly sums: (redirected: ReadonlyArray<Redirected>) => ReadonlyArray<Bytes>
  readonly forget: (redirected: ReadonlyArray<Redirected>) => void
}

/** Redirections by others are counted too, up to this many; then the oldest are dropped. */
const mostServices = 65_536

export const makeAccounting = (): FlowAccounting => {
  /** By service (protocol, port and backend of the flows), then by the address that clients sent to. */
  const sums = new Map<string, Map<string, Mutable<Bytes>>>()
  /** The part of each live flow that the sums contain. */
  let counted = new Map<string, Bytes>()
  let dumped: Map<string, Bytes> | undefined
  let endedMeanwhile = new Set<string>()

  const add = (flow: Flow, before: Bytes | undefined) => {
    const service = serviceOf(
      flow.original.protocol,
      flow.original.destinationPort,
      flow.reply.source,
      flow.reply.sourcePort
    )
    let byAddress = sums.get(service)
    if (byAddress === undefined) {
      byAddress = new Map()
      sums.set(service, byAddress)
      if (sums.size > mostServices) for (const oldest of sums.keys()) return void sums.delete(oldest)
    }
    const address = textOf(flow.original.destination)
    const sum = byAddress.get(address) ?? { in: 0, out: 0 }
    sum.in += Math.max(0, flow.bytesIn - (before?.in ?? 0))
    sum.out += Math.max(0, flow.bytesOut - (before?.out ?? 0))
    byAddress.set(address, sum)
  }

  const addressesOf = ({ protocol, port, backend }: Redirected) =>
    sums.get(serviceOf(protocolNumber[protocol], port, backend.address.octets, backend.port))

  /** The addresses of a service that have their own redirection. */
  const specific = (redirected: ReadonlyArray<Redirected>): ReadonlySet<string> =>
    new Set(
      redirected.filter(({ host }) => !isUnspecified(host)).map((one) => keyAt(one, textOf(one.host.octets)))
    )

  return {
    begin: () => {
      dumped = new Map()
      endedMeanwhile = new Set()
    },
    seen: (flow) => {
      const name = nameOf(flow)
      if (dumped === undefined || endedMeanwhile.has(name)) return
      add(flow, dumped.get(name) ?? counted.get(name))
      dumped.set(name, { in: flow.bytesIn, out: flow.bytesOut })
    },
    finish: () => {
      counted = dumped ?? counted
      dumped = undefined
    },
    ended: (flow) => {
      const name = nameOf(flow)
      add(flow, dumped?.get(name) ?? counted.get(name))
      counted.delete(name)
      dumped?.delete(name)
      if (dumped !== undefined) endedMeanwhile.add(name)
    },
    sums: (redirected) => {
      const own = specific(redirected)
      return redirected.map((one) => {
        const total = { in: 0, out: 0 }
        for (const [address, sum] of addressesOf(one) ?? []) {
          if (isUnspecified(one.host) ? own.has(keyAt(one, address)) : address !== textOf(one.host.octets))
            continue
          total.in += sum.in
          total.out += sum.out
        }
        return total
      })
    },
    forget: (redirected) => {
      for (const one of redirected) {
        const byAddress = addressesOf(one)
        if (isUnspecified(one.host)) byAddress?.clear()
        else byAddress?.delete(textOf(one.host.octets))
      }
    }
  }
}

/** The kernel's id is a 32-bit hash; together with the client's port it is unique among a host's flows. */
const nameOf = ({ id, original }: Flow): string => `${id} ${original.sourcePort}`

const serviceOf = (protocol: number, port: number, backend: Uint8Array, backendPort: number): string =>
  `${protocol} ${port} ${textOf(backend)} ${backendPort}`

const keyAt = ({ protocol, port }: Redirected, address: string): string =>
  `${protocolNumber[protocol]} ${port} ${address}`

const textOf = (octets: Uint8Array): string => String.fromCharCode(...octets)
