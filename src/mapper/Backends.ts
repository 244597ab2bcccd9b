/** Whether the container behind a backend address is still there, for settling a conflict between two mappings. */
import { Context, Effect, Layer } from "effect"
import type { Endpoint } from "../protocol/PortBinding.ts"

export type BackendState = "running" | "gone" | "unknown"

export class Backends extends Context.Service<
  Backends,
  {
    /** `gone` only where it is certain that nothing runs at this address any more; never fails. */
    readonly stateOf: (backend: Endpoint) => Effect.Effect<BackendState>
  }
>()("portmapper/mapper/Backends") {
  /** Where nobody can be asked. */
  static readonly layerUnknown = Layer.succeed(Backends, { stateOf: () => Effect.succeed("unknown") })

  /** Knows what a test tells it: the keys of addresses whose containers are gone; all others run. */
  static readonly layerMemory = (gone: ReadonlySet<string>) =>
    Layer.succeed(Backends, {
      stateOf: ({ address }) => Effect.sync(() => (gone.has(address.key) ? "gone" : "running"))
    })
}
