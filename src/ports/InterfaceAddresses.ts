/** The addresses of the host's network interfaces, as they come and go. */
import { Context, Effect, Layer, Queue, Schema, type Scope, Stream } from "effect"
import type { Address } from "../protocol/Address.ts"

/**
 * The addresses that ports are published at, by the name of their interface; one without any has an empty list. Not
 * among them: link-local IPv6 addresses, which a client reaches only with a zone; temporary ones (RFC 8981), which the
 * host has for its own connections; tentative ones, which can't be bound yet. Deprecated ones are valid for new
 * connections and stay until they are removed (RFC 4862, section 5.5.4).
 */
export type Interfaces = ReadonlyMap<string, ReadonlyArray<Address>>

/** The interfaces of the host can't be read. */
export class InterfaceError extends Schema.TaggedError<InterfaceError>()("InterfaceError", {
  detail: Schema.String
}) {
  override get message(): string {
    return `reading the addresses of interfaces: ${this.detail}`
  }
}

export class InterfaceAddresses extends Context.Service<
  InterfaceAddresses,
  {
    readonly current: Effect.Effect<Interfaces, InterfaceError>
    /**
     * Emits `current` at once and after each change, until it fails. Changes may be merged, and one that is undone at
     * once may be left out, but the last element always equals `current`.
     */
    readonly changes: Stream.Stream<Interfaces, InterfaceError>
  }
>()("portmapper/ports/InterfaceAddresses") {
  /** A host without interfaces, until `MemoryInterfaces` adds some. */
  static readonly layerMemory: Layer.Layer<InterfaceAddresses | MemoryInterfaces> = Layer.effectContext(
    Effect.sync(() => {
      const interfaces = new Map<string, ReadonlyArray<Address>>()
      const listeners = new Set<() => void>()
      const change = (run: () => void) =>
        Effect.sync(() => {
          run()
          for (const listener of listeners) listener()
        })
      const listen = (onChange: () => void) =>
        Effect.acquireRelease(
          Effect.sync(() => void listeners.add(onChange)),
          () => Effect.sync(() => void listeners.delete(onChange))
        )
      return Context.make(
        InterfaceAddresses,
        followed(
          Effect.sync(() => new Map(interfaces)),
          listen
        )
      ).pipe(
        Context.add(MemoryInterfaces, {
          set: (name, addresses) => change(() => void interfaces.set(name, addresses)),
          remove: (name) => change(() => void interfaces.delete(name))
        })
      )
    })
  )
}

/** Changes the interfaces of the in-memory host. */
export class MemoryInterfaces extends Context.Service<
  MemoryInterfaces,
  {
    /** Adds the interface, if it is new. */
    readonly set: (name: string, addresses: ReadonlyArray<Address>) => Effect.Effect<void>
    readonly remove: (name: string) => Effect.Effect<void>
  }
>()("portmapper/ports/MemoryInterfaces") {}

/** The service of a host that reports only that something may have changed, from when `listen` returns. */
export const followed = (
  current: Effect.Effect<Interfaces, InterfaceError>,
  listen: (onChange: () => void) => Effect.Effect<void, InterfaceError, Scope.Scope>
): InterfaceAddresses["Service"] => ({
  current,
  changes: Stream.callback<void, InterfaceError>(
    (queue) => {
      const offer = () => void Queue.offerUnsafe(queue, undefined)
      return Effect.andThen(listen(offer), Effect.sync(offer))
    },
    // Reads once for all that happens during a read.
    { bufferSize: 1, strategy: "sliding" }
  ).pipe(
    Stream.mapEffect(() => current),
    Stream.changesWith((one, other) => textOf(one) === textOf(other))
  )
})

const textOf = (interfaces: Interfaces): string =>
  JSON.stringify([...interfaces].map(([name, all]) => [name, ...all.map(({ key }) => key).sort()]).sort())
