import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import fc from "fast-check"
import { applyChange, fromState, type Model } from "../../adapters/page/app/model.ts"
import { type FeedOptions, makeFeed, type Reader } from "../../adapters/page/PageFeed.ts"
import { Journal } from "../../src/page/Journal.ts"
import type { PageChange, PageState } from "../../src/page/PageState.ts"
import { Driver, type ListedMapping } from "../../src/protocol/Driver.ts"
import { listed } from "./listed.ts"
import { hostOf } from "./rows.ts"

/** A host whose mappings the test sets, and how often it was looked at. */
const makeHost = (more: Partial<FeedOptions> = {}) => {
  const host = {
    mappings: [listed(8080)] as ReadonlyArray<ListedMapping>,
    looks: 0,
    asked: [] as Array<number>
  }
  const journal = new Journal(() => 0)
  const untouched = Effect.die("the page changes nothing")
  const driver = Driver.of({
    mapPorts: () => untouched,
    mapGroups: () => untouched,
    unmapPorts: () => untouched,
    followContainer: () => untouched,
    activated: untouched,
    listPorts: Effect.sync(() => {
      host.looks++
      return host.mappings
    })
  })
  const { descriptors, memory, relayThreads, relayRefused } = hostOf()
  return {
    host,
    journal,
    feed: makeFeed({
      driver,
      journal,
      plugin: { name: "portmapper", version: "0.1.0", host: "here", startedAt: 0 },
      epoch: "e-1",
      use: Effect.succeed({ descriptors, memory, relayThreads, relayRefused }),
      processorMillis: () => 0,
      doctor: {
        found: () => ({ checks: null, drops: noDrops }),
        ask: (maxAge) => void host.asked.push(maxAge)
      },
      reaching: "",
      ...more
    })
  }
}

const noDrops = new Map()

interface Event {
  readonly id: string
  readonly name: string
  readonly data: string
}

const makeReader = () => {
  let text = ""
  const page = { isReady: true }
  const reader: Reader = {
    isReady: () => page.isReady,
    write: (parts) => {
      for (const part of parts) text += new TextDecoder().decode(part)
    }
  }
  return {
    page,
    reader,
    /** The events since the last call. */
    take: (): ReadonlyArray<Event> => {
      const events = [...text.matchAll(/id: (.*)\nevent: (.*)\ndata: (.*)\n\n/g)].map(
        ([, id = "", name = "", data = ""]) => ({ id, name, data })
      )
      text = ""
      return events
    }
  }
}

const named = (events: ReadonlyArray<Event>) => events.map(({ id, name }) => `${name} ${id}`)

/** What a browser makes of events. */
const shown = (before: Model | undefined, events: ReadonlyArray<Event>): Model | undefined =>
  events.reduce<Model | undefined>((model, { name, data }) => {
    if (name === "state") return fromState(JSON.parse(data) as PageState, model)
    assert.isDefined(model, "a change came before a state")
    const change = JSON.parse(data) as PageChange
    assert.strictEqual(change.sequence, (model?.sequence ?? 0) + 1)
    return model && applyChange(model, change)
  }, before)

const second = TestClock.adjust("1 second")

describe("the feed of pages", () => {
  it.effect("sends the state, then changes: one look a second for all pages, and none without one", () =>
    Effect.gen(function* () {
      const { host, feed: making } = makeHost()
      const feed = yield* making
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(host.looks, 0)
      const pages = Array.from({ length: 50 }, makeReader)
      const stops = pages.map(({ reader }) => feed.follow(reader, undefined))
      yield* Effect.yieldNow
      for (const { take } of pages) assert.deepStrictEqual(named(take()), ["state e-1-1"])
      host.mappings = [listed(8080), listed(8081)]
      yield* second
      yield* second
      for (const { take } of pages) assert.deepStrictEqual(named(take()), ["change e-1-2", "change e-1-3"])
      assert.strictEqual(host.looks, 3)
      for (const stop of stops) stop()
      yield* TestClock.adjust("1 minute")
      assert.isAtMost(host.looks, 4)
    })
  )

  it.effect("gives a page that opens later the state of the last look at once", () =>
    Effect.gen(function* () {
      const { host, feed: making } = makeHost()
      const feed = yield* making
      feed.follow(makeReader().reader, undefined)
      yield* Effect.yieldNow
      const late = makeReader()
      feed.follow(late.reader, undefined)
      assert.deepStrictEqual(named(late.take()), ["state e-1-1"])
      assert.strictEqual(host.looks, 1)
    })
  )

  it.effect("goes on after the last event where it can, else begins with the state", () =>
    Effect.gen(function* () {
      const { feed: making } = makeHost()
      const feed = yield* making
      feed.follow(makeReader().reader, undefined)
      yield* Effect.yieldNow
      yield* second
      yield* second
      const resumed = (id: string) => {
        const page = makeReader()
        feed.follow(page.reader, id)
        return named(page.take())
      }
      assert.deepStrictEqual(resumed("e-1-1"), ["change e-1-2", "change e-1-3"])
      assert.deepStrictEqual(resumed("e-1-3"), [])
      for (const id of ["e-1-4", "e-1-", "e-1--1", "e-1-1e9", "e-2-1", "", "e-1-0"])
        assert.deepStrictEqual(resumed(id), ["state e-1-3"], id)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        resumed("e-1-3").map((event) => event.split(" ")[0]),
        ["state"]
      )
    })
  )

  it.effect("waits for a page that reads slowly", () =>
    Effect.gen(function* () {
      const { feed: making } = makeHost()
      const feed = yield* making
      const { page, reader, take } = makeReader()
      feed.follow(reader, undefined)
      yield* Effect.yieldNow
      take()
      page.isReady = false
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(named(take()), [])
      page.isReady = true
      yield* second
      assert.deepStrictEqual(
        named(take()),
        [2, 3, 4, 5, 6, 7].map((number) => `change e-1-${number}`)
      )
    })
  )

  it.effect("looks later where a look takes long: a 40th of a processor, but every 10 seconds", () =>
    Effect.gen(function* () {
      let spent = 0
      let cost = 100
      const { host, feed: making } = makeHost({ processorMillis: () => (spent += cost / 2) })
      const feed = yield* making
      feed.follow(makeReader().reader, undefined)
      yield* Effect.yieldNow
      yield* TestClock.adjust("1900 millis")
      assert.strictEqual(host.looks, 1)
      yield* TestClock.adjust("100 millis")
      assert.strictEqual(host.looks, 2)
      cost = 2000
      yield* TestClock.adjust("2000 millis")
      assert.strictEqual(host.looks, 3)
      yield* TestClock.adjust("9999 millis")
      assert.strictEqual(host.looks, 3)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(host.looks, 4)
    })
  )

  it.effect("returns the state as JSON without pages, from a look of the last second", () =>
    Effect.gen(function* () {
      const { host, feed: making } = makeHost()
      const feed = yield* making
      const state = Effect.map(
        feed.state,
        (bytes) => JSON.parse(new TextDecoder().decode(bytes)) as PageState
      )
      assert.strictEqual((yield* state).sequence, 1)
      yield* TestClock.adjust("999 millis")
      assert.strictEqual((yield* state).sequence, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* state).sequence, 2)
      assert.strictEqual(host.looks, 2)
    })
  )

  it.effect("asks doctor when a page opens, and every five minutes", () =>
    Effect.gen(function* () {
      const { host, feed: making } = makeHost()
      const feed = yield* making
      feed.follow(makeReader().reader, undefined)
      yield* Effect.yieldNow
      assert.deepStrictEqual(host.asked, [60_000, 300_000])
    })
  )

  it.effect("shows every page what the state says, whatever changes and however slowly pages read", () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) =>
          Effect.runPromise(Effect.scoped(Effect.provide(play(steps), TestClock.layer())))
        ),
        { numRuns: 100 }
      )
    )
  )
})

const mapping = fc
  .record({
    port: fc.integer({ min: 1, max: 4 }),
    connections: fc.option(fc.integer({ min: 0, max: 3 }), { nil: undefined }),
    bytesIn: fc.option(fc.integer({ min: 0, max: 3000 }), { nil: undefined }),
    state: fc.constantFrom<ListedMapping["state"]>("live", "live", "conflicted", "stale"),
    owner: fc.constantFrom("engine", "cli")
  })
  .map(({ port, ...rest }) => listed(port, rest))

const step = fc.record({
  mappings: fc.array(mapping, { maxLength: 5 }),
  /** Whether each page has read everything by then. */
  ready: fc.tuple(fc.boolean(), fc.boolean()),
  event: fc.boolean(),
  /** Whether the second page connects again. */
  reconnects: fc.boolean()
})

type Step = typeof step extends fc.Arbitrary<infer A> ? A : never

const play = Effect.fnUntraced(function* (steps: ReadonlyArray<Step>) {
  const { host, journal, feed: making } = makeHost()
  const feed = yield* making
  const pages = [makeReader(), makeReader()]
  const models: Array<Model | undefined> = [undefined, undefined]
  const stops = pages.map(({ reader }) => feed.follow(reader, undefined))
  yield* Effect.yieldNow
  for (const { mappings, ready, event, reconnects } of [...steps, last]) {
    host.mappings = mappings
    if (event) journal.note({ kind: "mapped", text: "a port", key: null, owner: null })
    for (const [index, { page }] of pages.entries()) page.isReady = ready[index] === true
    yield* second
    for (const [index, { take }] of pages.entries()) models[index] = shown(models[index], take())
    const { 1: model } = models
    if (!reconnects || model === undefined || pages[1] === undefined) continue
    stops[1]?.()
    stops[1] = feed.follow(pages[1].reader, `${model.epoch}-${model.sequence}`)
    models[1] = shown(model, pages[1].take())
  }
  const state = fromState(JSON.parse(new TextDecoder().decode(yield* feed.state)) as PageState)
  for (const model of models) assert.deepStrictEqual(model && comparable(model), comparable(state))
})

const last: Step = { mappings: [listed(1)], ready: [true, true], event: true, reconnects: false }

const comparable = ({ rows, host, sequence, events, history }: Model) => ({
  rows: [...rows.values()].sort((a, b) => a.id - b.id),
  host,
  sequence,
  events,
  history: history.slice(-1)
})
