/**
 * The bytes that the kernel carried for redirected ports, as far as it counts them. What the relay carries is counted by
 * the relay.
 */
import { Context, Effect, Layer } from "effect"
import type { Address } from "../protocol/Address.ts"
import { type Endpoint, frontendText } from "../protocol/PortBinding.ts"
import type { Protocol } from "../protocol/Protocol.ts"

export interface Redirected {
  readonly protocol: Protocol
  readonly host: Address
  readonly port: number
  readonly backend: Endpoint
}

/** `in` to the backend, `out` from it: whole packets, headers of IP included. */
export interface Bytes {
  readonly in: number
  readonly out: number
}

export class ByteCounter extends Context.Service<
  ByteCounter,
  {
    /**
     * What each of these redirections carried, in their order: flows to its frontend that were led to its backend, those
     * that live now and those that ended since counting began. A frontend of a specific address has the flows to that
     * address, and not the unspecified one beside it. A sum never falls while its redirection stands, may lag by a second,
     * and begins again with the process. `undefined` where the host does not count. Never fails.
     */
    readonly read: (redirected: ReadonlyArray<Redirected>) => Effect.Effect<ReadonlyArray<Bytes | undefined>>
    /** These redirections are gone: the next ones of the same frontends begin at zero. */
    readonly forget: (redirected: ReadonlyArray<Redirected>) => Effect.Effect<void>
  }
>()("portmapper/firewall/ByteCounter") {
  /** Where the kernel counts nothing, or carries nothing. */
  static readonly layerNone = Layer.succeed(ByteCounter, {
    read: (redirected) => Effect.succeed(redirected.map(() => undefined)),
    forget: () => Effect.void
  })

  static readonly layerMemory = Layer.unwrap(
    Effect.map(
      Effect.sync(() => {
        const carried = new Map<string, Bytes>()
        let counting = false
        const textOf = ({ protocol, host, port }: Redirected) => frontendText(protocol, host, port)
        const service = ByteCounter.of({
          read: (redirected) =>
            Effect.sync(() =>
              redirected.map((one) => (counting ? (carried.get(textOf(one)) ?? nothing) : undefined))
            ),
          forget: (redirected) =>
            Effect.sync(() => {
              for (const one of redirected) carried.delete(textOf(one))
            })
        })
        const control = MemoryByteCounter.of({
          carry: (frontend, bytes) => {
            counting = true
            const before = carried.get(frontend) ?? nothing
            carried.set(frontend, { in: before.in + bytes.in, out: before.out + bytes.out })
          }
        })
        return { service, control }
      }),
      ({ service, control }) =>
        Layer.merge(Layer.succeed(ByteCounter, service), Layer.succeed(MemoryByteCounter, control))
    )
  )
}

const nothing: Bytes = { in: 0, out: 0 }

export class MemoryByteCounter extends Context.Service<
  MemoryByteCounter,
  {
    /** The kernel carries bytes for a frontend, as `0.0.0.0:80/tcp`; from the first time on it counts. */
    readonly carry: (frontend: string, bytes: Bytes) => void
  }
>()("portmapper/firewall/MemoryByteCounter") {}
