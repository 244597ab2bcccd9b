/**
 * The record: the mappings that must survive the process, each with the state of its answer. Lives as long as the
 * kernel rules it describes.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { stepped } from "../memory/Steps.ts"
import { type Mapping, type MappingEntry, mappingKey, type Status } from "./model/Mapping.ts"

/**
 * `applied`: the host serves it, and its answer is pending; a restore keeps it as unconfirmed. `answered`: a caller
 * has received an answer with it; a restore keeps it. A rule that a kill leaves in the kernel without a record was
 * never answered.
 */
export type StoredState = "applied" | "answered"

export const recordedState = (status: Status): StoredState =>
  status._tag === "Answered" || (status._tag === "Conflicted" && status.was === "Answered")
    ? "answered"
    : "applied"

export interface Stored {
  readonly mapping: Mapping
  readonly state: StoredState
}

/**
 * The Engine starts noticed so far; `activated`: an Engine activated the plugin, and no `MapPorts` has followed
 * yet.
 */
export interface StoredEngine {
  readonly epoch: number
  readonly activated: boolean
}

/** An earlier record that could not be used: why, and where the damaged file was moved. */
export interface LostRecord {
  readonly why: string
  readonly path: string
}

export interface StoredAll {
  /** In no particular order. */
  readonly mappings: ReadonlyArray<Stored>
  readonly engine: StoredEngine
  /** Returned by every `load` of the process that lost it. */
  readonly lost: LostRecord | undefined
}

const newEngine: StoredEngine = { epoch: 0, activated: false }

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
    /**
     * Records mappings, all or none; a record with the same key is replaced. Once this has succeeded, the record
     * survives any end of the process. Where space runs out, `applied` is refused first (`Full`), so that existing
     * mappings can still be confirmed and removed.
     */
    readonly put: (records: ReadonlyArray<Stored>) => Effect.Effect<void, StoreError>
    /**
     * Removes mappings, and then records others in their place, all or none; succeeds for one that is not recorded.
     */
    readonly remove: (
      mappings: ReadonlyArray<Mapping>,
      instead?: ReadonlyArray<Stored>
    ) => Effect.Effect<void, StoreError>
    readonly putEngine: (engine: StoredEngine) => Effect.Effect<void, StoreError>
    /**
     * Makes sure that the next process will find the record, and writes it anew where another process removed or
     * replaced it; cheap enough for ten times a second. `put` of `applied` does the same.
     */
    readonly check: Effect.Effect<void, StoreError>
  }
>()("portmapper/mapper/MappingStore") {
  static readonly layerMemory = Layer.unwrap(
    Effect.map(Effect.sync(makeMemoryStore), ({ service, control }) =>
      Layer.merge(Layer.succeed(MappingStore, service), Layer.succeed(MemoryStore, control))
    )
  )
}

/** Records entries in their current state, in one transaction. */
export const recordEntries = (
  store: MappingStore["Service"],
  entries: ReadonlyArray<Pick<MappingEntry, "mapping" | "status">>
): Effect.Effect<void, StoreError> =>
  entries.length === 0
    ? Effect.void
    : store.put(entries.map(({ mapping, status }) => ({ mapping, state: recordedState(status) })))

export class MemoryStore extends Context.Service<
  MemoryStore,
  {
    readonly records: () => ReadonlyArray<Stored>
    /** Refuses every write with this error until it is `undefined` again. */
    readonly refuse: (error: StoreError | undefined) => void
    /** Loses every record, like a store that finds its file damaged. */
    readonly lose: (lost: LostRecord) => void
  }
>()("portmapper/mapper/MemoryStore") {}

function makeMemoryStore() {
  const records = new Map<string, Stored>()
  let engine = newEngine
  let lost: LostRecord | undefined
  let refused: StoreError | undefined

  const write = (operation: string, change: () => void): Effect.Effect<void, StoreError> =>
    stepped(
      `MappingStore.${operation}`,
      (failure) => new StoreError({ reason: "Failed", operation, detail: failure.message }),
      () => {
        if (refused !== undefined) return Effect.fail(refused)
        change()
        return Effect.void
      }
    )

  const service = MappingStore.of({
    load: Effect.sync(() => ({ mappings: [...records.values()], engine, lost })),
    put: (changed) =>
      write("put", () => {
        for (const each of changed) records.set(mappingKey(each.mapping), each)
      }),
    remove: (mappings, instead = []) =>
      write("remove", () => {
        for (const mapping of mappings) records.delete(mappingKey(mapping))
        for (const each of instead) records.set(mappingKey(each.mapping), each)
      }),
    check: Effect.void,
    putEngine: (next) =>
      write("putEngine", () => {
        engine = next
      })
  })

  const control = MemoryStore.of({
    records: () => [...records.values()],
    refuse: (error) => {
      refused = error
    },
    lose: (record) => {
      records.clear()
      engine = newEngine
      lost = record
    }
  })

  return { service, control }
}
