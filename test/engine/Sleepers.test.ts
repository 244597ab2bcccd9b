import { assert, describe, it } from "@effect/vitest"
import type { Rest } from "../../adapters/engine/Sleeper.ts"
import { Sleepers } from "../../adapters/engine/Sleepers.ts"
import { container } from "./containers.ts"

const rest: Rest = { timeoutMillis: 30_000, count: 1, sleepMillis: 600_000 }
const running = container("web")
const { id } = running
const neverRan = { ...running, running: false, neverRan: true }
const ended = { ...running, running: false, ended: true }
const [web, tls] = ["web", "tls"]

/** One container with two ports, as it was last seen. */
const seen = (now = neverRan as typeof running, slept: ReadonlyArray<readonly [string, string]> = []) => {
  const sleepers = new Sleepers(new Map(slept))
  const see = (container: typeof running) => sleepers.see({ container, rest, serving: new Set() }, 0)
  see(now)
  sleepers.setPorts(
    id,
    new Map([
      [web, 80],
      [tls, 443]
    ])
  )
  return { sleepers, see }
}

const idle = (sleepers: Sleepers, key = web) => sleepers.idleOf(id, key, [], 0)

/** Both of its ports take connections. */
const wake = (sleepers: Sleepers) => {
  sleepers.starting(id, 0)
  sleepers.started(id, undefined, 0)
  for (const key of [web, tls]) sleepers.opened(id, key, 0)
}

describe("the containers that sleep", () => {
  it("may be woken if they never ran, or we stopped them", () => {
    assert.isTrue(new Sleepers(new Map()).mayWake(neverRan))
    assert.isTrue(new Sleepers(new Map([[id, "run 1"]])).mayWake(ended))
    assert.isFalse(new Sleepers(new Map()).mayWake(ended))
  })

  it("get traffic port by port, as each takes connections, and are awake with the last", () => {
    const { sleepers } = seen()
    assert.deepStrictEqual([idle(sleepers), sleepers.isClosed(id, web)], ["asleep", false])
    sleepers.starting(id, 0)
    assert.deepStrictEqual([idle(sleepers), sleepers.isClosed(id, web)], ["waking", false])
    sleepers.started(id, undefined, 0)
    assert.isTrue(sleepers.isClosed(id, web))
    sleepers.opened(id, web, 0)
    assert.deepStrictEqual([idle(sleepers), idle(sleepers, tls)], [undefined, "waking"])
    assert.strictEqual(sleepers.get(id)?.phase, "waking")
    sleepers.opened(id, tls, 0)
    assert.deepStrictEqual([idle(sleepers, tls), sleepers.get(id)?.phase], [undefined, "awake"])
  })

  it("say which ports keep clients waiting too long", () => {
    const { sleepers } = seen()
    sleepers.starting(id, 0)
    sleepers.started(id, undefined, 0)
    sleepers.opened(id, web, 0)
    sleepers.late(id)
    assert.strictEqual(
      sleepers.get(id)?.why,
      "it runs, and port 443 takes no connections 30 s after its start"
    )
  })

  it("open no port before they run again", () => {
    const { sleepers, see } = seen()
    wake(sleepers)
    sleepers.sleepsAfter(id, "run 1")
    for (const at of [0, 600_000, 600_000]) sleepers.looked(id, { begun: 0, open: 0 }, at)
    sleepers.stopped(id, 600_000)
    see(ended)
    sleepers.starting(id, 600_000)
    sleepers.started(id, undefined, 600_000)
    assert.isTrue(sleepers.isClosed(id, web))
  })

  it("refuse clients while each of those that share the port waits for its next attempt", () => {
    const { sleepers } = seen()
    sleepers.starting(id, 0)
    sleepers.started(id, "no such file", 0)
    const fellow = seen().sleepers.all
    assert.strictEqual(sleepers.idleOf(id, web, [], 0), "failed")
    assert.strictEqual(sleepers.idleOf(id, web, fellow, 0), "asleep")
    assert.strictEqual(sleepers.idleOf(id, web, [], 1000), "asleep")
  })

  it("are forgotten once a person starts or ends them, they are awake, or they are gone", () => {
    const slept = [[id, "run 1"]] as ReadonlyArray<readonly [string, string]>
    const forgotten = (
      by: (sleepers: Sleepers, see: (now: typeof running) => unknown) => void,
      now = ended
    ) => {
      const { sleepers, see } = seen(now, slept)
      assert.deepStrictEqual<unknown>([...sleepers.slept], slept)
      by(sleepers, see)
      return [sleepers.slept.size, sleepers.takeUnsaved(), sleepers.takeUnsaved()]
    }
    const once = [0, true, false]
    assert.deepStrictEqual(forgotten(wake), once)
    assert.deepStrictEqual(
      forgotten((sleepers) => sleepers.keep(new Set(), new Set())),
      once
    )
    assert.deepStrictEqual(
      forgotten((sleepers, see) => {
        sleepers.starting(id, 0)
        sleepers.heard(id, "start", 0)
        sleepers.heard(id, "stop", 0)
        see(ended)
      }),
      once
    )
    const unseen = new Sleepers(new Map(slept))
    unseen.heard(id, "stop", 0)
    assert.strictEqual(unseen.slept.size, 1)
    unseen.heard(id, "start", 0)
    assert.strictEqual(unseen.slept.size, 0)
  })

  it("report once that one is dropped that still exists", () => {
    const { sleepers, see } = seen()
    const all = new Set([id])
    assert.isFalse(sleepers.keep(all, all))
    assert.isTrue(sleepers.keep(new Set(), all))
    assert.isFalse(sleepers.keep(new Set(), all))
    see(neverRan)
    assert.isFalse(sleepers.keep(new Set(), new Set()))
    // It ended otherwise than by us.
    see(neverRan)
    see({ ...running, running: false })
    see(running)
    assert.isFalse(sleepers.keep(all, all))
  })

  it("learn from another process only of those that they know nothing of", () => {
    const { sleepers } = seen()
    sleepers.sleepsAfter("mine", "run 1")
    sleepers.takeUnsaved()
    sleepers.learn(
      new Map([
        [id, "run 7"],
        ["mine", "run 7"],
        ["other", "run 7"]
      ])
    )
    assert.deepStrictEqual(
      [...sleepers.slept],
      [
        ["mine", "run 1"],
        ["other", "run 7"]
      ]
    )
    assert.isTrue(sleepers.takeUnsaved())
  })

  it("name those that ended while they were woken, once, and none that we stopped", () => {
    const { sleepers, see } = seen()
    assert.deepStrictEqual(sleepers.takeEnded(), [])
    sleepers.starting(id, 0)
    sleepers.started(id, undefined, 0)
    see(ended)
    assert.deepStrictEqual([sleepers.takeEnded(), sleepers.takeEnded()], [[id], []])
  })
})
