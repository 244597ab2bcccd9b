/**
 * The kernel's memory of flows, as far as published UDP ports need it changed: a flow that began before its mapping, or
 * belongs to one removed, would go on to where it went before.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { Steps } from "../memory/Steps.ts"
import type { Address } from "../protocol/Address.ts"
import { frontendText } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"

export interface FlowFrontend {
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
}

export class ConntrackError extends Schema.TaggedError<ConntrackError>()("ConntrackError", {
  detail: Schema.String
}) {
  override get message(): string {
    return `flushing flows failed: ${this.detail}`
  }
}

export class Conntrack extends Context.Service<
  Conntrack,
  {
    /**
     * Forgets the flows whose original destination is one of these frontends: protocol, port and address, where an
     * unspecified address stands for the addresses of this host. No other host's forwarded flow is touched. One pass
     * over the kernel's table, whatever the number of frontends.
     */
    readonly flush: (frontends: ReadonlyArray<FlowFrontend>) => Effect.Effect<void, ConntrackError>
  }
>()("portmapper/firewall/Conntrack") {
  /** Where nothing is redirected there are no flows to forget. */
  static readonly layerNone = Layer.succeed(Conntrack, { flush: () => Effect.void })

  static readonly layerMemory = Layer.unwrap(
    Effect.map(
      Effect.sync(() => {
        const flushed: Array<string> = []
        const service = Conntrack.of({
          flush: Effect.fnUntraced(function* (frontends) {
            const pass = yield* Steps
            yield* Effect.mapError(
              pass("Conntrack.flush"),
              (failure) => new ConntrackError({ detail: failure.message })
            )
            for (const { protocol, host, port } of frontends) flushed.push(frontendText(protocol, host, port))
          })
        })
        return { service, control: MemoryConntrack.of({ flushed: () => flushed }) }
      }),
      ({ service, control }) =>
        Layer.merge(Layer.succeed(Conntrack, service), Layer.succeed(MemoryConntrack, control))
    )
  )
}

export class MemoryConntrack extends Context.Service<
  MemoryConntrack,
  {
    /** The frontends flushed so far, in order. */
    readonly flushed: () => ReadonlyArray<string>
  }
>()("portmapper/firewall/MemoryConntrack") {}
