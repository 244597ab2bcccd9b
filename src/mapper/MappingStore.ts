/**
 * What must survive the process: the mappings, each with how far it got. Lives as long as the kernel rules it describes.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { Steps } from "../memory/Steps.ts"
import { type Mapping, mappingKey } from "./Mapping.ts"

/**
 * `intent`: written before the kernel changes; undone by a restore. `applied`: the kernel changed, the answer is on its
 * way; kept by a restore as unconfirmed. `answered`: the caller knows; kept.
 */
export type StoredState = "intent" | "applied" | "answered"

export interface Stored {
  readonly mapping: Mapping
  readonly state: StoredState
}

export interface StoredAll {
  readonly mappings: ReadonlyArray<Stored>
  readonly epoch: number
}

/** `Full`: the file system has no space left. `Failed`: anything else. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  reason: Schema.Literals(["Full", "Failed"]),
  operation: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.operation} failed: ${this.detail}`
  }
}

export class MappingStore extends Context.Service<
  MappingStore,
  {
    readonly load: Effect.Effect<StoredAll, StoreError>
    /** Records mappings, all or none; one that is known by its key is replaced. */
    readonly put: (mappings: ReadonlyArray<Mapping>, state: StoredState) => Effect.Effect<void, StoreError>
    /** Forgets mappings, all or none; forgetting what is not there succeeds. */
    readonly remove: (mappings: ReadonlyArray<Mapping>) => Effect.Effect<void, StoreError>
    /** Records the Engine's epoch. */
    readonly putEpoch: (epoch: number) => Effect.Effect<void, StoreError>
  }
>()("portmapper/mapper/MappingStore") {
  static readonly layerMemory = Layer.unwrap(
    Effect.map(Effect.sync(makeMemoryStore), ({ service, control }) =>
      Layer.merge(Layer.succeed(MappingStore, service), Layer.succeed(MemoryStore, control))
    )
  )
}

export class MemoryStore extends Context.Service<
  MemoryStore,
  {
    readonly records: () => ReadonlyArray<Stored>
    /** Every write is refused with this error until it is `undefined` again. */
    readonly refuse: (error: StoreError | undefined) => void
  }
>()("portmapper/mapper/MemoryStore") {}

function makeMemoryStore() {
  const records = new Map<string, Stored>()
  let epoch = 0
  let refused: StoreError | undefined

  const write = (operation: string, change: () => void) =>
    Effect.gen(function* () {
      const pass = yield* Steps
      yield* Effect.mapError(
        pass(`MappingStore.${operation}`),
        (failure) => new StoreError({ reason: "Failed", operation, detail: failure.message })
      )
      if (refused !== undefined) return yield* refused
      change()
    })

  const service = MappingStore.of({
    load: Effect.sync(() => ({ mappings: [...records.values()], epoch })),
    put: (mappings, state) =>
      write("put", () => {
        for (const mapping of mappings) records.set(mappingKey(mapping), { mapping, state })
      }),
    remove: (mappings) =>
      write("remove", () => {
        for (const mapping of mappings) records.delete(mappingKey(mapping))
      }),
    putEpoch: (number) =>
      write("putEpoch", () => {
        epoch = number
      })
  })

  const control = MemoryStore.of({
    records: () => [...records.values()],
    refuse: (error) => {
      refused = error
    }
  })

  return { service, control }
}
