/**
 * What a watch must remember across restarts beyond the mapper's own record: the subscriptions, and the ports of
 * containers that don't run at the moment. Lives as long as the state directory.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Context, Effect, Layer, Schema } from "effect"
import { writePrivateUnsafe } from "../node/StateDirectory.ts"
import { Subscription } from "./Subscription.ts"

export interface Recorded {
  readonly follows: ReadonlyArray<Subscription>
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
    /** Returns an empty record if nothing was recorded yet. */
    readonly load: Effect.Effect<Recorded, RecordError>
    /** Atomic: if this fails, the previous record stays. */
    readonly save: (recorded: Recorded) => Effect.Effect<void, RecordError>
    /** Whether what was loaded or saved is not there, as where another process removed the directory. */
    readonly isLost: Effect.Effect<boolean>
  }
>()("portmapper/engine/WatchRecord") {
  /** In an existing private directory. */
  static readonly layer = (directory: string): Layer.Layer<WatchRecord> =>
    Layer.sync(WatchRecord, () => {
      const path = Path.join(directory, watchFile)
      let isKept = Fs.existsSync(path)
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
          attempt(() => {
            isKept = true
            writePrivateUnsafe(path, JSON.stringify({ follows, granted: Object.fromEntries(granted) }))
          }),
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

const nothing: Recorded = { follows: [], granted: new Map() }

const File = Schema.Struct({
  follows: Schema.Array(Subscription),
  granted: Schema.Record(Schema.String, Schema.Number)
})

const decode = Schema.decodeUnknownSync(File)
