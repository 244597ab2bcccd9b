/**
 * What a watch must know after a restart and the mapper's own record does not say: which containers are followed, and the
 * ports that containers had which do not run just now. Lives as long as the state directory.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Context, Effect, Layer, Schema } from "effect"
import { writePrivateUnsafe } from "../node/StateDirectory.ts"
import { ContainerSubscription } from "./ContainerSubscription.ts"

export interface Recorded {
  readonly follows: ReadonlyArray<ContainerSubscription>
  /** Ports that were picked, by the keys of groups. */
  readonly granted: ReadonlyMap<string, number>
}

export class RecordError extends Schema.TaggedError<RecordError>()("RecordError", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path}: ${this.detail}`
  }
}

export class WatchRecord extends Context.Service<
  WatchRecord,
  {
    /** Nothing where nothing was recorded yet. */
    readonly load: Effect.Effect<Recorded, RecordError>
    /** All of it or nothing: what was recorded before stays where this fails. */
    readonly save: (recorded: Recorded) => Effect.Effect<void, RecordError>
  }
>()("portmapper/engine/WatchRecord") {
  /** In a directory that is there and private. */
  static readonly layer = (directory: string): Layer.Layer<WatchRecord> =>
    Layer.sync(WatchRecord, () => {
      const path = Path.join(directory, watchFile)
      const attempt = <A>(run: () => A) =>
        Effect.try({
          try: run,
          catch: (error) => new RecordError({ path, detail: (error as Error).message })
        })
      return {
        load: attempt(() => {
          if (!Fs.existsSync(path)) return nothing
          const { follows, granted } = decode(JSON.parse(Fs.readFileSync(path, "utf8")))
          return { follows, granted: new Map(Object.entries(granted)) }
        }),
        save: ({ follows, granted }) =>
          attempt(() =>
            writePrivateUnsafe(path, JSON.stringify({ follows, granted: Object.fromEntries(granted) }))
          )
      }
    })

  static readonly layerMemory: Layer.Layer<WatchRecord> = Layer.sync(WatchRecord, () => {
    let kept = nothing
    return {
      load: Effect.sync(() => kept),
      save: (recorded) =>
        Effect.sync(() => {
          kept = recorded
        })
    }
  })
}

export const watchFile = "watch.json"

const nothing: Recorded = { follows: [], granted: new Map() }

const File = Schema.Struct({
  follows: Schema.Array(ContainerSubscription),
  granted: Schema.Record(Schema.String, Schema.Number)
})

const decode = Schema.decodeUnknownSync(File)
