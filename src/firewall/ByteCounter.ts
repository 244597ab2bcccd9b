/**
 * The bytes that the kernel carried for redirected ports, where it counts them. The relay counts what it carries
 * itself.
 */
import { Context, Effect, Layer } from "effect"
import { type Endpoint, frontendText, type PublishedPort } from "../protocol/PortBinding.ts"

export interface Redirected extends PublishedPort {
  readonly backend: Endpoint
}

/** `in` to the backend, `out` from it: whole packets, IP headers included. */
export interface Bytes {
  readonly in: number
  readonly out: number
}

export class ByteCounter extends Context.Service<
  ByteCounter,
  {
    /**
     * The bytes of each of these redirections, in their order: the flows to its frontend that the kernel redirected
     * to its backend, those that live now and those that ended since counting began. A frontend of a specific
     * address counts the flows to that address, and the unspecified one beside it does not. A sum never falls while
     * its redirection exists, may lag by a second, and restarts with the process. `undefined` where the host does
     * not count. Never fails.
     */
    readonly read: (redirected: ReadonlyArray<Redirected>) => Effect.Effect<ReadonlyArray<Bytes | undefined>>
    /** These redirections were removed: later ones of the same frontends start at zero. */
    readonly forget: (redirected: ReadonlyArray<Redirected>) => Effect.Effect<void>
  }
>()("portmapper/firewall/ByteCounter") {
  /** For a kernel that counts nothing, or carries nothing. */
  static readonly layerNone = Layer.succeed(ByteCounter, {
    read: (redirected) => Effect.succeed(redirected.map(() => undefined)),
    forget: () => Effect.void
  })

  static readonly layerMemory = Layer.unwrap(
    Effect.map(
      Effect.sync(() => {
        const carried = new Map<string, Bytes>()
        let counting = false
        const service = ByteCounter.of({
          read: (redirected) =>
            Effect.sync(() =>
              redirected.map((one) => (counting ? (carried.get(frontendText(one)) ?? nothing) : undefined))
            ),
          forget: (redirected) =>
            Effect.sync(() => {
              for (const one of redirected) carried.delete(frontendText(one))
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
    /** Carries bytes for a frontend, as `0.0.0.0:80/tcp`; its counter exists from the first call on. */
    readonly carry: (frontend: string, bytes: Bytes) => void
  }
>()("portmapper/firewall/MemoryByteCounter") {}
