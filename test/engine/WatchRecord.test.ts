import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type Recorded, WatchRecord, watchFile } from "../../adapters/engine/WatchRecord.ts"
import { temporaryFolder } from "../support/folders.ts"

const recorded: Recorded = {
  follows: [],
  granted: new Map([["a", 1]]),
  slept: new Map([["0123", "2026-01-02T03:04:05Z"]])
}

const load = WatchRecord.use((record) => record.load)
const save = (what: Recorded) => WatchRecord.use((record) => record.save(what))

const isEmptyAtFirst = Effect.gen(function* () {
  assert.deepStrictEqual(yield* load, { follows: [], granted: new Map(), slept: new Map() })
  yield* save({ ...recorded, granted: new Map([["b", 2]]) })
  yield* save(recorded)
  assert.deepStrictEqual(yield* load, recorded)
})

describe("the record of a watch", () => {
  it.effect("in memory is empty at first, and then what was saved last", () =>
    Effect.provide(isEmptyAtFirst, WatchRecord.layerMemory)
  )

  it.effect("in a file, too, which another process reads and no other user", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      yield* Effect.provide(isEmptyAtFirst, WatchRecord.layer(folder))
      assert.deepStrictEqual(yield* Effect.provide(load, WatchRecord.layer(folder)), recorded)
      assert.strictEqual(Fs.statSync(Path.join(folder, watchFile)).mode & 0o777, 0o600)
    })
  )

  it.effect("keeps the containers that we stopped where a restart of the host leaves them", () =>
    Effect.gen(function* () {
      const folder = yield* temporaryFolder
      const [state, lasting] = [Path.join(folder, "state"), Path.join(folder, "lasting", "portmapper")]
      Fs.mkdirSync(state)
      Fs.mkdirSync(Path.dirname(lasting))
      const layer = WatchRecord.layer(state, lasting)
      yield* Effect.provide(save({ ...recorded, slept: new Map() }), layer)
      assert.isFalse(Fs.existsSync(lasting))
      yield* Effect.provide(save(recorded), layer)
      Fs.rmSync(state, { recursive: true })
      assert.deepStrictEqual((yield* Effect.provide(load, layer)).slept, recorded.slept)
      yield* Effect.provide(
        Effect.andThen(load, Effect.ignore(save({ ...recorded, slept: new Map() }))),
        WatchRecord.layer(folder, lasting)
      )
      assert.deepStrictEqual((yield* Effect.provide(load, layer)).slept, new Map())
    })
  )

  it.effect("is lost where another process removes the file, until it is saved again", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, watchFile)
      const states = Effect.gen(function* () {
        const { isLost } = yield* WatchRecord
        const before = yield* isLost
        yield* save(recorded)
        const saved = yield* isLost
        Fs.rmSync(path)
        const removed = yield* isLost
        yield* save(recorded)
        return [before, saved, removed, yield* isLost]
      })
      const seen = yield* Effect.provide(states, WatchRecord.layer(Path.dirname(path)))
      assert.deepStrictEqual(seen, [false, false, true, false])
    })
  )

  it.effect("fails with the file's path where the file holds something else", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, watchFile)
      for (const text of ["", "{", "[]", '{"follows":[],"granted":{"a":"x"}}']) {
        Fs.writeFileSync(path, text)
        const { message } = yield* Effect.flip(Effect.provide(load, WatchRecord.layer(Path.dirname(path))))
        assert.include(message, `${path}: `, text)
      }
    })
  )
})
