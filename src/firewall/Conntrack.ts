/**
 * The kernel's conntrack table, where published ports need it changed. A flow keeps the destination of its first
 * packet: one that began before its mapping, or belongs to a removed one, would never reach the port's current
 * backend.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { IpNetwork } from "effect/net"
import { stepped } from "../memory/Steps.ts"
import { type Endpoint, endpointText, frontendText, type PublishedPort } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import { type Rule, redirectsNothing } from "./Firewall.ts"

/**
 * A frontend, and where the kernel redirects its flows now: to `backend`, from sources within `allow`; nowhere if
 * `undefined`.
 */
export interface FlowFrontend extends PublishedPort {
  readonly backend: Endpoint | undefined
  /** `undefined` allows every source. */
  readonly allow: ReadonlyArray<IpNetwork.IpNetwork> | undefined
  /** Whether sources outside `allow` were allowed until now: their flows end, connections included. */
  readonly narrowed: boolean
  /**
   * `backend` is one of a service's: it has `joined`, and flows that are redirected to others stay; or it has
   * `left`, and only its own flows are concerned.
   */
  readonly share?: "joined" | "left"
}

export interface FlowBackend {
  readonly protocol: Protocol
  readonly backend: Endpoint
}

export class ConntrackError extends Schema.TaggedError<ConntrackError>()("ConntrackError", {
  doing: Schema.Literals(["flushing", "counting"]),
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.doing} flows failed: ${this.detail}`
  }
}

/** Logs a failure: an old flow may then continue until it times out. */
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
     * unspecified address means all addresses of this host but its loopback ones) and that don't go to the
     * frontend's current backend. Flows forwarded for other hosts are not touched. One pass over the kernel's table
     * for each family and protocol, whatever the number of frontends.
     *
     * UDP flows are gone when this returns, and so are connections from sources outside a `narrowed` frontend's
     * list; a later packet of either end does not revive these connections. Any other TCP or SCTP connection ends
     * with its backend and is left alone, with three exceptions, in which a client's retransmissions would be lost for
     * seconds, minutes or days: one whose first packet arrived between two changes and was neither redirected nor
     * answered, one that was not redirected and was reset, such as by the relay while no backend was ready, and one
     * that is redirected to another backend than the frontend's current one, which may have vanished without an end.
     * These are forgotten within two seconds, before the second retransmission. After a failure some flows may be
     * gone.
     */
    readonly flush: (frontends: ReadonlyArray<FlowFrontend>) => Effect.Effect<void, ConntrackError>
    /**
     * How many flows lead to each of these backends, by any rule and from any client. A connection counts
     * from its first packet until both ends have closed it, a flow of UDP until it times out. One pass over the kernel's
     * table for each address and protocol.
     */
    readonly open: (
      backends: ReadonlyArray<FlowBackend>
    ) => Effect.Effect<ReadonlyArray<number>, ConntrackError>
  }
>()("portmapper/firewall/Conntrack") {
  /** Where nothing is redirected there are no flows to forget. */
  static readonly layerNone = Layer.succeed(Conntrack, {
    flush: () => Effect.void,
    open: (backends) => Effect.succeed(backends.map(() => 0))
  })

  static readonly layerMemory = Layer.unwrap(
    Effect.map(
      Effect.sync(() => {
        const flushed: Array<FlowFrontend> = []
        const open = new Map<string, number>()
        const backendText = ({ protocol, backend }: FlowBackend) => `${endpointText(backend)}/${protocol}`
        const service = Conntrack.of({
          flush: (frontends) =>
            stepped(
              "Conntrack.flush",
              (failure) => new ConntrackError({ doing: "flushing", detail: failure.message }),
              () => {
                flushed.push(...frontends)
                if (flushed.length >= 2 * rememberedFlushes) flushed.splice(0, rememberedFlushes)
                return Effect.void
              }
            ),
          open: (backends) => Effect.sync(() => backends.map((one) => open.get(backendText(one)) ?? 0))
        })
        const control = MemoryConntrack.of({
          flushed: () => flushed.map(flowText),
          keepOpen: (backend, flows) => void open.set(backend, flows)
        })
        return { service, control }
      }),
      ({ service, control }) =>
        Layer.merge(Layer.succeed(Conntrack, service), Layer.succeed(MemoryConntrack, control))
    )
  )
}

export class MemoryConntrack extends Context.Service<
  MemoryConntrack,
  {
    /** The frontends flushed so far, in order, at least the last `rememberedFlushes`; see `flowText`. */
    readonly flushed: () => ReadonlyArray<string>
    /** So many flows lead to a backend from now on, as `172.17.0.2:80/tcp`. */
    readonly keepOpen: (backend: string, flows: number) => void
  }
>()("portmapper/firewall/MemoryConntrack") {}

/** Bounds the list, since a long session in memory flushes without end. */
const rememberedFlushes = 10_000

/** The flows that these new rules redirect elsewhere from now on. */
export const flowsOfAdded = (rules: ReadonlyArray<Rule>): ReadonlyArray<FlowFrontend> =>
  rules.flatMap((rule): ReadonlyArray<FlowFrontend> => {
    if (redirectsNothing(rule)) return []
    if (rule._tag === "Redirect")
      return [
        {
          ...flowsOf(rule, rule.backend, rule.allow, false),
          ...(rule.share === undefined ? {} : { share: "joined" as const })
        }
      ]
    return rule._tag === "Limit" && rule.protocol === "udp" ? [flowsOf(rule)] : []
  })

/** The flows that removed rules still redirect; connections continue as they were. */
export const flowsOfRemoved = (rules: ReadonlyArray<Rule>): ReadonlyArray<FlowFrontend> =>
  rules.flatMap((rule): ReadonlyArray<FlowFrontend> => {
    if (rule._tag !== "Redirect" || rule.protocol !== "udp") return []
    return [rule.share === undefined ? flowsOf(rule) : { ...flowsOf(rule, rule.backend), share: "left" }]
  })

/** The flows of these rules from sources that are no longer allowed. */
export const flowsOfNarrowed = (
  before: ReadonlyArray<Rule>,
  allow: FlowFrontend["allow"]
): ReadonlyArray<FlowFrontend> =>
  before.flatMap((rule) =>
    rule._tag === "Redirect" && !admitsAll(allow, rule.allow)
      ? [flowsOf(rule, rule.backend, allow, true)]
      : []
  )

/**
 * Whether each network lies within one network of `allow`; several networks that only together contain it don't
 * count.
 */
const admitsAll = (allow: FlowFrontend["allow"], networks: FlowFrontend["allow"]): boolean =>
  allow === undefined ||
  (networks?.every((network) => allow.some((wider) => IpNetwork.containsNetwork(wider, network))) ?? false)

const flowsOf = (
  { protocol, host, port }: Rule,
  backend?: Endpoint,
  allow?: FlowFrontend["allow"],
  narrowed = false
): FlowFrontend => ({ protocol, host, port, backend, allow, narrowed })

/**
 * `0.0.0.0:53/udp`, `0.0.0.0:53/udp unless to 172.17.0.2:53 from 10.0.0.0/8`, the same `and narrowed`, `joined` or
 * `left`.
 */
export const flowText = (flows: FlowFrontend): string => {
  const { protocol, host, port, backend, allow, narrowed, share } = flows
  const from =
    allow === undefined ? "" : ` from ${allow.map((network) => IpNetwork.format(network)).join(",")}`
  const unless = backend === undefined ? "" : ` unless to ${endpointText(backend)}${from}`
  return `${frontendText({ protocol, host, port })}${unless}${narrowed ? " and narrowed" : ""}${share === undefined ? "" : ` ${share}`}`
}
