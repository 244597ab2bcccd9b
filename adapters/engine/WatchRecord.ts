/**
 * What a watch must remember across restarts beyond the mapper's own record: the subscriptions, and the ports of
 * containers that don't run at the moment, which live as long as the state directory; and which containers we stopped,
 * which outlives a restart of the host as the containers do.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Context, Effect, Layer, Schema } from "effect"
import { prepareDirectory, writeAtomicallyUnsafe } from "../node/StateDirectory.ts"
import type { Slept } from "./Sleepers.ts"
import { Subscription } from "./Subscription.ts"

export interface Recorded {
  readonly follows: ReadonlyArray<Subscription>
  /** Ports that were picked, by the keys of groups. */
  readonly granted: ReadonlyMap<string, number>
  readonly slept: Slept
}

export class RecordError extends Schema.TaggedError<RecordError>()("RecordError", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `the watch's record ${this.path}: ${this.detail}`
  }
}

export class WatchRecord extends Context.Service<
  WatchRecord,
  {
    /** Returns an empty record if nothing was recorded yet. */
    readonly load: Effect.Effect<Recorded, RecordError>
    /** Atomic: if this fails, the previous record stays. */
    readonly save: (recorded: Recorded) => Effect.Effect<void, RecordError>
    /** Whether what was loaded or saved is not there, as where another process removed the directory. */
    readonly isLost: Effect.Effect<boolean>
  }
>()("portmapper/engine/WatchRecord") {
  /** In existing private directories, or in a second one that is made when it is needed. */
  static readonly layer = (directory: string, lasting = directory): Layer.Layer<WatchRecord> =>
    Layer.sync(WatchRecord, () => {
      const path = Path.join(directory, watchFile)
      const sleptPath = Path.join(lasting, sleptFile)
      let isKept = Fs.existsSync(path)
      const attempt = <A>(path: string, run: () => A) =>
        Effect.try({
          try: run,
          catch: (error) => new RecordError({ path, detail: (error as Error).message })
        })
      const read = <A>(path: string, decode: (value: unknown) => A, missing: A) =>
        attempt(path, () =>
          Fs.existsSync(path) ? decode(JSON.parse(Fs.readFileSync(path, "utf8"))) : missing
        )
      const prepared = Effect.mapError(
        Effect.suspend(() => (lasting === directory ? Effect.void : prepareDirectory(lasting))),
        ({ detail }) => new RecordError({ path: lasting, detail })
      )
      let written = "{}"
      const saveSlept = (slept: Slept) => {
        const text = JSON.stringify(Object.fromEntries(slept))
        if (text === written) return Effect.void
        return Effect.andThen(
          prepared,
          attempt(sleptPath, () => {
            writeAtomicallyUnsafe(sleptPath, text)
            written = text
          })
        )
      }
      return {
        load: Effect.gen(function* () {
          const { follows, granted } = yield* read(path, decode, { follows: [], granted: {} })
          const slept = yield* read(sleptPath, decodeSlept, {})
          written = JSON.stringify(slept)
          return {
            follows,
            granted: new Map(Object.entries(granted)),
            slept: new Map(Object.entries(slept))
          }
        }),
        save: ({ follows, granted, slept }) =>
          Effect.andThen(
            attempt(path, () => {
              isKept = true
              writeAtomicallyUnsafe(path, JSON.stringify({ follows, granted: Object.fromEntries(granted) }))
            }),
            saveSlept(slept)
          ),
        isLost: Effect.sync(() => isKept && !Fs.existsSync(path))
      }
    })

  static readonly layerMemory: Layer.Layer<WatchRecord> = Layer.sync(WatchRecord, () => {
    let kept = nothing
    return {
      load: Effect.sync(() => kept),
      save: (recorded) =>
        Effect.sync(() => {
          kept = recorded
        }),
      isLost: Effect.succeed(false)
    }
  })
}

export const watchFile = "watch.json"
const sleptFile = "slept.json"

const nothing: Recorded = { follows: [], granted: new Map(), slept: new Map() }

const File = Schema.Struct({
  follows: Schema.Array(Subscription),
  granted: Schema.Record(Schema.String, Schema.Number)
})

const decodeSlept = Schema.decodeUnknownSync(Schema.Record(Schema.String, Schema.String))

const decode = Schema.decodeUnknownSync(File)
