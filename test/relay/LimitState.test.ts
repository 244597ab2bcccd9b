import { once } from "node:events"
import { Worker } from "node:worker_threads"
import { assert, describe, it } from "@effect/vitest"
import {
  forgetThread,
  hasSources,
  LimitState,
  makeLimitState,
  sourcesKept
} from "../../adapters/relay/LimitState.ts"

/** Two threads of one frontend, with a clock that the test moves. */
const threads = (withSources = false) => {
  const state = makeLimitState(withSources)
  const clock = { nanoseconds: 1_000_000_000_000n }
  const thread = (index: number) => new LimitState(state, index, () => clock.nanoseconds)
  return {
    state,
    one: thread(0),
    other: thread(1),
    pass: (millis: number) => (clock.nanoseconds += BigInt(millis * 1_000_000))
  }
}

const taken = (times: number, take: () => boolean) =>
  Array.from({ length: times }, take).filter(Boolean).length

describe("what a frontend's limits have counted", () => {
  it("is at most so many open connections, of all threads together", () => {
    const { one, other } = threads()
    assert.strictEqual(
      taken(3, () => one.takePlace(5)),
      3
    )
    assert.strictEqual(
      taken(3, () => other.takePlace(5)),
      2
    )
    one.addPlaces(-1)
    assert.deepStrictEqual([one.takePlace(5), one.takePlace(5), one.open], [true, false, 5])
  })

  it("gives back what a dead thread had open, and no more", () => {
    const { state, one, other } = threads()
    taken(3, () => one.takePlace(9))
    taken(2, () => other.takePlace(9))
    forgetThread(state, 0)
    assert.strictEqual(other.open, 2)
    forgetThread(state, 0)
    assert.strictEqual(other.open, 2)
  })

  it("is a rate that allows one second's worth at once, and then one for each interval", () => {
    const { one, other, pass } = threads()
    assert.strictEqual(
      taken(30, () => one.takeOfRate(20)),
      20
    )
    assert.isFalse(other.takeOfRate(20))
    pass(50)
    assert.deepStrictEqual([other.takeOfRate(20), one.takeOfRate(20)], [true, false])
    pass(60_000)
    assert.strictEqual(
      taken(30, () => one.takeOfRate(20)),
      20
    )
  })

  it("is a rate for each source, whichever thread serves it", () => {
    const { one, other } = threads(true)
    const source = (last: number) => Uint8Array.of(9, 203, 0, 113, last)
    assert.strictEqual(
      taken(9, () => one.takeOfSource(2, source(1), 1, 4)),
      2
    )
    assert.isFalse(other.takeOfSource(2, source(1), 1, 4))
    assert.strictEqual(
      taken(9, () => other.takeOfSource(2, source(2), 1, 4)),
      2
    )
  })

  it("forgets the sources that were quiet for longest once there are more than it keeps", () => {
    const { one, pass } = threads(true)
    const bytes = new Uint8Array(16)
    const view = new DataView(bytes.buffer)
    // All of them within the second of the rate.
    const take = (source: number) => {
      pass(0.001)
      view.setUint32(12, source)
      return one.takeOfSource(1, bytes, 0, 16)
    }
    assert.isTrue(take(0))
    assert.isFalse(take(0))
    for (let source = 1; source < sourcesKept * 4; source++) assert.isTrue(take(source), `${source}`)
    assert.isTrue(take(0))
    let remembered = 0
    for (let last = 1; last <= sourcesKept / 4; last++) if (!take(sourcesKept * 4 - last)) remembered++
    assert.isAbove(remembered, (sourcesKept / 4) * 0.95)
  })

  it("is each place once, however many threads ask", async () => {
    const { state, one } = threads()
    const taken = [0, 1, 2].map(async (thread) => {
      const worker = new Worker(taker, { eval: true, workerData: { state, thread } })
      return Number((await once(worker, "message"))[0])
    })
    assert.strictEqual(
      (await Promise.all(taken)).reduce((sum, places) => sum + places, 0),
      30_000
    )
    assert.strictEqual(one.open, 30_000)
  })

  it("has memory for sources only where it is asked for", () =>
    assert.deepStrictEqual(
      [true, false].map((withSources) => hasSources(makeLimitState(withSources))),
      [true, false]
    ))
})

const taker = `
  import { parentPort, workerData } from "node:worker_threads"
  import { LimitState } from ${JSON.stringify(new URL("../../adapters/relay/LimitState.ts", import.meta.url).href)}
  const state = new LimitState(workerData.state, workerData.thread, process.hrtime.bigint)
  let taken = 0
  while (state.takePlace(30_000)) taken++
  parentPort.postMessage(taken)`
