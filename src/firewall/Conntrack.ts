/**
 * The kernel's memory of flows, as far as published ports need it changed. A flow goes on to where its first packet went:
 * one that began before its mapping, or belongs to one removed, would never be led to where the port leads now.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { IpNetwork } from "effect/net"
import { stepped } from "../memory/Steps.ts"
import type { Address } from "../protocol/Address.ts"
import { type Endpoint, endpointText, frontendText } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import type { Rule } from "./Firewall.ts"

/** A frontend, and where the kernel leads its flows now: to `backend`, from sources within `allow`; nowhere if `undefined`. */
export interface FlowFrontend {
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
  readonly backend: Endpoint | undefined
  /** `undefined` lets every source in. */
  readonly allow: ReadonlyArray<IpNetwork.IpNetwork> | undefined
}

export class ConntrackError extends Schema.TaggedError<ConntrackError>()("ConntrackError", {
  detail: Schema.String
}) {
  override get message(): string {
    return `flushing flows failed: ${this.detail}`
  }
}

/** Where that fails, an old flow may go on for its time, which is told. */
export const forgetFlows = (
  conntrack: Conntrack["Service"],
  flows: ReadonlyArray<FlowFrontend>
): Effect.Effect<void> =>
  flows.length === 0
    ? Effect.void
    : Effect.catch(conntrack.flush(flows), (error) => Effect.logWarning(error.message))

export class Conntrack extends Context.Service<
  Conntrack,
  {
    /**
     * Forgets the flows whose original destination is one of these frontends (protocol, port and address, where an
     * unspecified address stands for the addresses of this host but its loopback ones) and that don't go where the
     * frontend leads now. No other host's forwarded flow is touched. One pass over the kernel's table for each family,
     * whatever the number of frontends.
     *
     * UDP flows are gone when this returns. A TCP or SCTP connection ends with its backend and is left alone, but for one
     * whose first packet came between two changes and was neither redirected nor answered: what is sent again would
     * follow it for minutes. Such are forgotten within two seconds, before the second attempt to send again.
     */
    readonly flush: (frontends: ReadonlyArray<FlowFrontend>) => Effect.Effect<void, ConntrackError>
  }
>()("portmapper/firewall/Conntrack") {
  /** Where nothing is redirected there are no flows to forget. */
  static readonly layerNone = Layer.succeed(Conntrack, { flush: () => Effect.void })

  static readonly layerMemory = Layer.unwrap(
    Effect.map(
      Effect.sync(() => {
        const flushed: Array<FlowFrontend> = []
        const service = Conntrack.of({
          flush: (frontends) =>
            stepped(
              "Conntrack.flush",
              (failure) => new ConntrackError({ detail: failure.message }),
              () => {
                flushed.push(...frontends)
                if (flushed.length >= 2 * rememberedFlushes) flushed.splice(0, rememberedFlushes)
                return Effect.void
              }
            )
        })
        return { service, control: MemoryConntrack.of({ flushed: () => flushed.map(flowText) }) }
      }),
      ({ service, control }) =>
        Layer.merge(Layer.succeed(Conntrack, service), Layer.succeed(MemoryConntrack, control))
    )
  )
}

export class MemoryConntrack extends Context.Service<
  MemoryConntrack,
  {
    /** The frontends flushed so far, in order, the last `rememberedFlushes` of them at least; see `flowText`. */
    readonly flushed: () => ReadonlyArray<string>
  }
>()("portmapper/firewall/MemoryConntrack") {}

/** A long session in memory has no end of them. */
const rememberedFlushes = 10_000

/** The flows that rules lead elsewhere from now on. */
export const flowsOfAdded = (rules: ReadonlyArray<Rule>): ReadonlyArray<FlowFrontend> =>
  rules.flatMap((rule): ReadonlyArray<FlowFrontend> => {
    const { _tag, protocol, host, port } = rule
    if (_tag === "Redirect") return [{ protocol, host, port, backend: rule.backend, allow: rule.allow }]
    return _tag === "Limit" && protocol === "udp"
      ? [{ protocol, host, port, backend: undefined, allow: undefined }]
      : []
  })

/** The flows that rules which are gone would still lead; connections go on as they were. */
export const flowsOfRemoved = (rules: ReadonlyArray<Rule>): ReadonlyArray<FlowFrontend> =>
  rules.flatMap(({ _tag, protocol, host, port }) =>
    _tag === "Redirect" && protocol === "udp"
      ? [{ protocol, host, port, backend: undefined, allow: undefined }]
      : []
  )

/** `0.0.0.0:53/udp`, `0.0.0.0:53/udp unless to 172.17.0.2:53 from 10.0.0.0/8`. */
export const flowText = ({ protocol, host, port, backend, allow }: FlowFrontend): string => {
  const from =
    allow === undefined ? "" : ` from ${allow.map((network) => IpNetwork.format(network)).join(",")}`
  const unless = backend === undefined ? "" : ` unless to ${endpointText(backend)}${from}`
  return `${frontendText(protocol, host, port)}${unless}`
}
