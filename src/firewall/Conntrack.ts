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
  /** Whether sources outside `allow` were let in until now: their flows end, connections included. */
  readonly narrowed: boolean
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
     * frontend leads now. No other host's forwarded flow is touched. One pass over the kernel's table for each family and
     * protocol, whatever the number of frontends.
     *
     * UDP flows are gone when this returns, and so are connections from sources outside a `narrowed` frontend's list; of
     * these, neither end's next packet takes the flow up again. Any other TCP or SCTP connection ends with its backend and
     * is left alone, but for one whose first packet came between two changes and was neither redirected nor answered: what
     * is sent again would follow it for minutes. Such are forgotten within two seconds, before the second attempt to send
     * again. After a failure some may be gone.
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
    if (rule._tag === "Redirect") return [flowsOf(rule, rule.backend, rule.allow, false)]
    return rule._tag === "Limit" && rule.protocol === "udp" ? [flowsOf(rule)] : []
  })

/** The flows that rules which are gone would still lead; connections go on as they were. */
export const flowsOfRemoved = (rules: ReadonlyArray<Rule>): ReadonlyArray<FlowFrontend> =>
  rules.flatMap((rule) => (rule._tag === "Redirect" && rule.protocol === "udp" ? [flowsOf(rule)] : []))

/** The flows that these rules led, as far as they come from sources that are admitted no longer. */
export const flowsOfNarrowed = (
  before: ReadonlyArray<Rule>,
  allow: FlowFrontend["allow"]
): ReadonlyArray<FlowFrontend> =>
  before.flatMap((rule) =>
    rule._tag === "Redirect" && !admitsAll(allow, rule.allow)
      ? [flowsOf(rule, rule.backend, allow, true)]
      : []
  )

/** Whether every network lies within one of `allow`; a network that several of them make up together does not. */
const admitsAll = (allow: FlowFrontend["allow"], networks: FlowFrontend["allow"]): boolean =>
  allow === undefined ||
  (networks?.every((network) => allow.some((wider) => IpNetwork.containsNetwork(wider, network))) ?? false)

const flowsOf = (
  { protocol, host, port }: Rule,
  backend?: Endpoint,
  allow?: FlowFrontend["allow"],
  narrowed = false
): FlowFrontend => ({ protocol, host, port, backend, allow, narrowed })

/** `0.0.0.0:53/udp`, `0.0.0.0:53/udp unless to 172.17.0.2:53 from 10.0.0.0/8`, the same `and narrowed`. */
export const flowText = ({ protocol, host, port, backend, allow, narrowed }: FlowFrontend): string => {
  const from =
    allow === undefined ? "" : ` from ${allow.map((network) => IpNetwork.format(network)).join(",")}`
  const unless = backend === undefined ? "" : ` unless to ${endpointText(backend)}${from}`
  return `${frontendText(protocol, host, port)}${unless}${narrowed ? " and narrowed" : ""}`
}
