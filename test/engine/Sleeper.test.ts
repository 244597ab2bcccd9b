import { assert, describe, it } from "@effect/vitest"
import {
  heard,
  isBackingOff,
  isLate,
  late,
  looked,
  lookMillis,
  opened,
  type Rest,
  type Sight,
  type Sleeper,
  seen,
  started,
  starting,
  stays,
  toStart,
  wanted
} from "../../adapters/engine/Sleeper.ts"

const minutes = (count: number) => count * 60_000
const rest: Rest = { timeoutMillis: 30_000, count: 1, sleepMillis: minutes(10) }

const neverRan = { running: false, ended: false, neverRan: true }
const running = { running: true, ended: false }
const ended = { running: false, ended: true }
const restarting = { running: false, ended: false }

const sight = (container: Sight["container"], more: Partial<Sight> = {}): Sight => ({
  container,
  rest,
  isOurs: false,
  serves: false,
  ...more
})

const surely = (sleeper: Sleeper | undefined): Sleeper => {
  if (sleeper === undefined) throw new Error("it sleeps no more")
  return sleeper
}

const asleep = surely(seen(undefined, sight(neverRan), 0))
const waking = started(starting(asleep, 0), undefined, 0)
const awake = opened(waking, 0)
const idle = { begun: 0, open: 0 }

describe("a container that sleeps", () => {
  it("is one that never ran, or that we stopped, and none that ended otherwise", () => {
    const phaseOf = (container: Sight["container"], more: Partial<Sight> = {}) =>
      seen(undefined, sight(container, more), 0)?.phase
    assert.strictEqual(phaseOf(neverRan), "asleep")
    assert.strictEqual(phaseOf(ended, { isOurs: true }), "asleep")
    assert.isUndefined(phaseOf(ended))
    assert.isUndefined(phaseOf(restarting, { isOurs: true }))
    assert.strictEqual(phaseOf(running), "waking")
    assert.strictEqual(phaseOf(running, { serves: true }), "awake")
    // A kill came just before or after we asked for its stop.
    const stopping = seen(undefined, sight(running, { isOurs: true }), 0)
    assert.strictEqual(stopping?.phase, "closing")
    assert.strictEqual(seen(stopping, sight(ended, { isOurs: true }), 1)?.phase, "asleep")
    assert.isUndefined(seen(stopping, sight(ended), 1))
  })

  it("is started once for all that wait", () => {
    assert.deepStrictEqual(toStart([asleep], 5), [])
    const waited = wanted(asleep, 5)
    assert.deepStrictEqual(toStart([waited], 5), [waited])
    const begun = starting(waited, 5)
    assert.deepStrictEqual(toStart([wanted(begun, 6)], 6), [])
    // The list may be older than the start, and newer than the Engine's answer.
    assert.strictEqual(seen(begun, sight(neverRan), 7)?.phase, "starting")
    assert.strictEqual(seen(begun, sight(running), 7)?.phase, "waking")
    assert.strictEqual(started(begun, undefined, 7).phase, "waking")
    assert.deepStrictEqual(toStart([wanted(waking, 8)], 8), [])
    assert.strictEqual(opened(waking, 9).phase, "awake")
  })

  it("is not started for a client that waits no more", () => {
    const waited = wanted(asleep, 0)
    assert.lengthOf(toStart([waited], rest.timeoutMillis - 1), 1)
    assert.lengthOf(toStart([waited], rest.timeoutMillis), 0)
  })

  it("is tried again after pauses that grow to a minute, with the reason, until it is awake", () => {
    const pauses: Array<number> = []
    let sleeper = wanted(asleep, 0)
    for (let attempt = 0; attempt < 8; attempt++) {
      sleeper = started(starting(sleeper, 0), "no such file: /serve", 0)
      pauses.push(sleeper.retryMillis)
      assert.strictEqual(sleeper.why, "no such file: /serve")
      assert.isTrue(isBackingOff(sleeper, sleeper.retryMillis - 1))
      assert.lengthOf(toStart([wanted(sleeper, 0)], sleeper.retryMillis - 1), 0)
      assert.isFalse(isBackingOff(sleeper, sleeper.retryMillis))
      assert.lengthOf(toStart([wanted(sleeper, sleeper.retryMillis)], sleeper.retryMillis), 1)
    }
    assert.deepStrictEqual(pauses, [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000])
    const up = opened(started(starting(sleeper, 0), undefined, 0), 0)
    assert.deepInclude(up, { failures: 0, why: undefined })
  })

  it("failed to come up where it ended by itself, and slept no more where a person ended it", () => {
    assert.deepInclude(seen(waking, sight(ended), 5), {
      phase: "asleep",
      failures: 1,
      why: "it ended while it was woken"
    })
    assert.isUndefined(seen(heard(waking, "stop", 4), sight(ended), 5))
    const begun = starting(asleep, 0)
    assert.isUndefined(seen(heard(heard(begun, "start", 1), "stop", 2), sight(ended), 3))
    // Nobody's start that was ended by hand before we looked.
    assert.isUndefined(seen(heard(heard(asleep, "start", 1), "stop", 2), sight(ended), 3))
    for (const up of [awake, heard(awake, "stop", 4)]) assert.isUndefined(seen(up, sight(ended), 5))
    // A restart is no end.
    const again = heard(heard(waking, "stop", 1), "start", 2)
    assert.strictEqual(seen(again, sight(ended), 3)?.phase, "asleep")
    assert.strictEqual(seen(waking, sight(restarting), 3)?.phase, "waking")
  })

  it("is late after the time that a client waits, and is awake once it takes connections all the same", () => {
    assert.isFalse(isLate(waking, rest.timeoutMillis - 1))
    assert.isTrue(isLate(waking, rest.timeoutMillis))
    const slow = late(waking, "port 80 takes no connections")
    assert.strictEqual(slow.why, "port 80 takes no connections")
    // Another of its service is woken instead.
    assert.deepStrictEqual(toStart([slow, wanted(asleep, 1)], 1).length, 1)
    assert.deepInclude(opened(slow, 9), { phase: "awake", why: undefined })
  })

  it("is stopped after its time without a connection", () => {
    let sleeper = looked(awake, idle, 0)
    for (let quarter = 1; quarter < 4; quarter++) {
      assert.strictEqual(lookMillis(sleeper), minutes(2.5 * quarter))
      sleeper = looked(sleeper, idle, minutes(2.5 * quarter))
      assert.strictEqual(sleeper.phase, "awake")
    }
    sleeper = looked(sleeper, idle, minutes(10))
    assert.strictEqual(sleeper.phase, "closing")
    assert.strictEqual(looked(sleeper, idle, minutes(10)).phase, "stopping")
  })

  it("is not stopped with a connection open, one that came since the last look, or none that could be counted", () => {
    const first = looked(awake, idle, 0)
    for (const use of [{ begun: 0, open: 1 }, { begun: 1, open: 0 }, undefined]) {
      const sleeper = looked(first, use, minutes(10))
      assert.deepInclude(sleeper, { phase: "awake", usedMillis: minutes(10) })
    }
    const closing = looked(first, idle, minutes(10))
    for (const busy of [
      looked(closing, { begun: 0, open: 1 }, minutes(10)),
      looked(closing, undefined, minutes(10)),
      wanted(closing, minutes(10)),
      stays(closing, "the kernel refused", minutes(10))
    ])
      assert.deepInclude(busy, { phase: "awake", usedMillis: minutes(10), look: undefined })
  })

  it("is not stopped within a minute of its start, nor looked at before that could count", () => {
    const brief = { ...rest, sleepMillis: 4_000 }
    const first = looked({ ...awake, rest: brief }, idle, 0)
    assert.strictEqual(lookMillis(first), 56_000)
    const early = looked(first, idle, 59_999)
    assert.strictEqual(early.phase, "awake")
    assert.strictEqual(looked(early, idle, 60_000).phase, "closing")
  })

  it("is looked at only while it is up, and never where it does not sleep", () => {
    assert.strictEqual(lookMillis(awake), 0)
    for (const sleeper of [asleep, waking, starting(asleep, 0)]) assert.isUndefined(lookMillis(sleeper))
    assert.isDefined(lookMillis(late(waking, "port 80 takes no connections")))
    assert.isUndefined(lookMillis({ ...awake, rest: { ...rest, sleepMillis: undefined } }))
  })

  it("is asleep once the Engine has stopped it, whatever the order of its events", () => {
    const stopping = looked(looked(looked(awake, idle, 0), idle, minutes(10)), idle, minutes(10))
    assert.strictEqual(seen(stopping, sight(running), 1)?.phase, "stopping")
    const slept = surely(seen(heard(stopping, "stop", 1), sight(ended), 2))
    assert.deepInclude(slept, { phase: "asleep", byHand: false })
    assert.deepInclude(seen(heard(slept, "stop", 3), sight(ended), 4), { phase: "asleep", byHand: false })
    // A client that came meanwhile wakes it again.
    assert.lengthOf(toStart([surely(seen(wanted(stopping, 1), sight(ended), 2))], 2), 1)
  })
})

describe("the containers of a service that sleep", () => {
  const replicas = (count: number, more: Partial<Rest> = {}) =>
    Array.from({ length: count }, (_, index) => ({
      ...wanted(asleep, 0),
      name: `web-${index + 1}`,
      rest: { ...rest, ...more }
    }))
  const names = (sleepers: ReadonlyArray<{ readonly name: string }>) => sleepers.map(({ name }) => name)

  it("are started as many as the labels say", () => {
    assert.deepStrictEqual(names(toStart(replicas(3), 0)), ["web-1"])
    assert.deepStrictEqual(names(toStart(replicas(3, { count: 2 }), 0)), ["web-1", "web-2"])
    assert.deepStrictEqual(names(toStart(replicas(3, { count: 5 }), 0)), ["web-1", "web-2", "web-3"])
  })

  it("count those that are up or about to be", () => {
    const [first, second, third] = replicas(3, { count: 2 })
    if (first === undefined || second === undefined || third === undefined) throw new Error("there are three")
    for (const phase of ["starting", "waking", "awake"] as const)
      assert.deepStrictEqual(names(toStart([{ ...first, phase }, second, third], 0)), ["web-2"])
    assert.deepStrictEqual(
      names(toStart([{ ...first, phase: "awake" }, { ...second, phase: "starting" }, third], 0)),
      []
    )
  })

  it("take turns where one does not come up", () => {
    const [first, second] = replicas(2)
    if (first === undefined || second === undefined) throw new Error("there are two")
    const broken = { ...first, ...started(starting(first, 0), "it is broken", 0) }
    assert.deepStrictEqual(names(toStart([broken, second], 0)), ["web-2"])
    assert.deepStrictEqual(
      names(toStart([wanted(broken, 1500), second], 1500).map((each) => ({ name: "", ...each }))),
      ["web-2"]
    )
  })
})
