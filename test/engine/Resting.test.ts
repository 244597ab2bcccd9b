import { assert, describe, it } from "@effect/vitest"
import { desiredByLabels } from "../../adapters/engine/Desired.ts"
import type { Container } from "../../adapters/engine/Engine.ts"
import { type Candidate, desiredOf, mayAskToSleep } from "../../adapters/engine/Resting.ts"
import { WatchState } from "../../adapters/engine/WatchState.ts"
import { container } from "./containers.ts"

const labels: Readonly<Record<string, string>> = {
  "portmapper.publish": "0.0.0.0:8080:80",
  "portmapper.wake": "on"
}
const running = container("web")
const neverRan = { ...running, running: false, neverRan: true }

const candidate = (one: Container, own: Readonly<Record<string, string>> = labels): Candidate => {
  const all = new Map(Object.entries(own))
  return {
    container: one,
    labels: all,
    desired: (sleeps) => desiredByLabels(one, all, { all: [one], interfaces: new Map(), sleeps })
  }
}

const newState = () => new WatchState({ follows: [], granted: new Map(), slept: new Map() })

/** Each group's traffic and backend, and the endpoints that are tried; `nowhere` is no address of a container. */
const at = (state: WatchState, ...candidates: ReadonlyArray<Candidate>) => {
  const containers = candidates.flatMap((each) => each.container ?? [])
  const { awaited, desired } = desiredOf(state, candidates, containers, 0)
  return {
    groups: desired.groups.map(({ group }) => {
      const to = group.entries[0]?.backend.address.text ?? ""
      return `${group.labels.get("portmapper.idle") ?? "traffic"} ${to.startsWith("100::") ? "nowhere" : to}`
    }),
    awaited: awaited.map(({ endpoint: { address, port } }) => `${address.text}:${port}`)
  }
}

/** After the Engine started it. */
const started = (one: Container, own = labels) => {
  const state = newState()
  at(state, candidate(neverRan, own))
  state.sleepers.starting(running.id, 0)
  state.sleepers.started(running.id, undefined, 0)
  return { state, ...at(state, candidate(one, own)) }
}

describe("a container that sleeps", () => {
  it("keeps its port, which leads nowhere while it does not run", () => {
    assert.deepStrictEqual(at(newState(), candidate(neverRan)), { groups: ["asleep nowhere"], awaited: [] })
  })

  it("is tried at its address once it runs, and gets traffic when its port takes connections", () => {
    const { state, ...waking } = started(running)
    assert.deepStrictEqual(waking, { groups: ["waking nowhere"], awaited: ["172.17.0.2:80"] })
    const [sleeper] = state.sleepers.all
    for (const key of sleeper?.ports.keys() ?? []) state.sleepers.opened(running.id, key, 0)
    assert.deepStrictEqual(at(state, candidate(running)), { groups: ["traffic 172.17.0.2"], awaited: [] })
  })

  it("gets traffic without a try where it is healthy, and by UDP, which shows nothing", () => {
    const awake = { groups: ["traffic 172.17.0.2"], awaited: [] }
    assert.deepInclude(started({ ...running, healthy: true }), awake)
    assert.deepInclude(started(running, { ...labels, "portmapper.publish": "0.0.0.0:53:53/udp" }), awake)
  })

  it("waits for its health check, unless its label says to ignore that, and never while it stops", () => {
    const [waits, tried] = [[], ["172.17.0.2:80"]]
    const awaited = (unready: Container["unready"], health?: string) =>
      started(
        { ...running, unready },
        health === undefined ? labels : { ...labels, "portmapper.health": health }
      ).awaited
    assert.deepStrictEqual(awaited("starting"), waits)
    assert.deepStrictEqual(awaited("unhealthy"), waits)
    assert.deepStrictEqual(awaited("starting", "ignore"), tried)
    assert.deepStrictEqual(awaited("stopping", "ignore"), waits)
  })

  it("keeps its address for a last look at its connections, and leads nowhere once it is stopped", () => {
    const sleeping = { ...labels, "portmapper.sleep": "10m" }
    const { state } = started({ ...running, healthy: true }, sleeping)
    const look = (millis: number) => state.sleepers.looked(running.id, { begun: 0, open: 0 }, millis)
    look(0)
    look(600_000)
    assert.deepStrictEqual(at(state, candidate(running, sleeping)).groups, ["asleep 172.17.0.2"])
    look(600_000)
    assert.deepStrictEqual(at(state, candidate(running, sleeping)).groups, ["asleep nowhere"])
  })

  it("is one whose labels are right, and name what to publish", () => {
    const wrong = { ...labels, "portmapper.wake-timeout": "soon" }
    assert.deepStrictEqual(at(newState(), candidate(neverRan, wrong)).groups, [])
    const plain = { "portmapper.publish": "0.0.0.0:8080:80" }
    assert.deepStrictEqual(at(newState(), candidate(running, plain)).groups, ["traffic 172.17.0.2"])
    const may = (own: Readonly<Record<string, string>>) =>
      mayAskToSleep(container("web", { labels: new Map(Object.entries(own)) }))
    assert.deepStrictEqual([labels, plain, { "portmapper.wake": "on" }].map(may), [true, false, false])
  })
})
