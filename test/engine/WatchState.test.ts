import { assert, describe, it } from "@effect/vitest"
import { type DesiredGroup, desiredBySubscription, problemOf } from "../../adapters/engine/Desired.ts"
import type { Subscription } from "../../adapters/engine/Subscription.ts"
import { WatchState } from "../../adapters/engine/WatchState.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import type { PortBinding } from "../../src/protocol/PortBinding.ts"
import { attachment, container, desired } from "./containers.ts"

const web = container("web")
const nothing = { follows: [], granted: new Map<string, number>(), slept: new Map<string, string>() }

const subscription = (publish: string, more: Partial<Subscription> = {}): Subscription => ({
  id: web.id,
  name: "web",
  publish,
  labels: {},
  owner: "cli",
  without: [],
  ...more
})

const groupOf = (publish: string, of = web, labels: Readonly<Record<string, string>> = {}) => {
  const [group] = desired(of, { "portmapper.publish": publish, ...labels }).groups
  if (group === undefined) throw new Error(`no group for ${publish}`)
  return group
}

const answer = ({ group }: ReturnType<typeof groupOf>, port: number): ReadonlyArray<PortBinding> =>
  group.entries.map((entry) => ({
    entry,
    port,
    discarded: undefined,
    allowForwarding: false,
    nat: undefined
  }))

const released = (of: ReturnType<typeof groupOf>, port: number, labels = new Map<string, string>()) => ({
  bindings: of.group.entries.map(({ protocol, host }) => ({
    protocol,
    host,
    port,
    backend: { address: undefined, port: 0 }
  })),
  labels
})

const undismissed = (state: WatchState, ...groups: ReadonlyArray<DesiredGroup>) =>
  state.undismissed({ groups, problems: [] }, true).groups

describe("the state of a watch", () => {
  it("does not desire again what was unmapped, until its container was gone", () => {
    const state = new WatchState(nothing)
    const group = groupOf("8080:80")
    state.mapped(group, answer(group, 8080))
    assert.isFalse(state.dismiss(released(group, 8081)))
    assert.isTrue(state.dismiss(released(group, 8080)))
    assert.deepStrictEqual([...state.observed.keys()], [])
    assert.deepStrictEqual(undismissed(state, group), [])
    // Of an Engine that is away nothing is known.
    state.undismissed({ groups: [], problems: [] }, false)
    assert.deepStrictEqual(undismissed(state, group), [])
    assert.deepStrictEqual(undismissed(state), [])
    assert.deepStrictEqual(undismissed(state, group), [group])
  })

  it("keeps the other backends of a service, published or waiting, where one is unmapped", () => {
    const state = new WatchState(nothing)
    const replica = (number: number) =>
      groupOf(
        "8080:80",
        container(`web-${number}`, { attachments: [attachment("bridge", `172.17.0.${number}`)] }),
        { "portmapper.share": "web" }
      )
    const [first, second, third] = [replica(2), replica(3), replica(4)]
    for (const group of [first, second]) state.mapped(group, answer(group, 8080))
    state.report([problemOf(third, "it is unhealthy", true)], 0)
    const unmapped = first.group.entries.map(({ protocol, host, backend }) => ({
      protocol,
      host,
      port: 8080,
      backend
    }))
    assert.isTrue(state.dismiss({ bindings: unmapped, labels: new Map() }))
    assert.deepStrictEqual([...state.observed.keys()], [second.key])
    assert.deepStrictEqual(undismissed(state, first, second, third), [second, third])
    assert.lengthOf(state.problems, 1)
    assert.isTrue(state.dismiss(released(third, 8080)))
    assert.lengthOf(state.problems, 0)
  })

  it("drops the ports of a subscription that were unmapped while its container was stopped", () => {
    const state = new WatchState({ ...nothing, follows: [subscription("8080-8081:80-81")] })
    const stopped = [{ ...web, running: false }]
    const [first] = state.subscriptions
    if (first === undefined) throw new Error("no subscription")
    const { problems } = desiredBySubscription(first, { all: stopped, interfaces: new Map(), sleeps: false })
    state.report(problems, 0)
    const [, second] = problems
    if (second?.desired === undefined) throw new Error("two ports wait")
    assert.isTrue(state.dismiss(released(second.desired, 8081)))
    assert.deepStrictEqual(state.subscriptions, [subscription("8080-8081:80-81", { without: [81] })])
    assert.lengthOf(state.problems, 1)
  })

  it("drops the ports of a subscription that were unmapped at its interface, published or not", () => {
    const at = subscription("wg0:8080-8082:80-82", { id: "172.17.0.2", name: "172.17.0.2" })
    const state = new WatchState({ ...nothing, follows: [at] })
    const release = (name: string, port: number, backend: string, backendPort: number) => ({
      bindings: [
        {
          protocol: "tcp",
          host: addressUnsafe("0.0.0.0"),
          port,
          backend: { address: addressUnsafe(backend), port: backendPort }
        } as const
      ],
      labels: new Map([["portmapper.interface", name]])
    })
    for (const other of [
      release("eth0", 8081, "172.17.0.2", 81),
      release("wg0", 8083, "172.17.0.2", 83),
      release("wg0", 8081, "172.17.0.3", 81),
      release("wg0", 8081, "172.17.0.2", 80)
    ])
      assert.isFalse(state.dismiss(other))
    assert.isTrue(state.dismiss(release("wg0", 8081, "172.17.0.2", 81)))
    assert.deepStrictEqual(state.subscriptions, [{ ...at, without: [81] }])
  })

  it("is recorded again where the record is lost", () => {
    const state = new WatchState({ ...nothing, follows: [subscription("80")] })
    assert.isUndefined(state.takeUnsaved())
    assert.deepStrictEqual(state.takeUnsaved(true)?.follows, [subscription("80")])
  })

  it("restores the replaced subscriptions, and leaves those added since", () => {
    const before = subscription("80", { without: [80] })
    const state = new WatchState({ ...nothing, follows: [before] })
    const undo = state.subscribe([subscription("80")])
    state.subscribe([subscription("81")])
    undo()
    assert.deepStrictEqual(state.subscriptions, [subscription("81"), before])
  })

  it("is recorded where it changed, without the ports of containers that are gone", () => {
    const state = new WatchState(nothing)
    assert.isUndefined(state.takeUnsaved())
    const group = groupOf("80")
    state.mapped(group, answer(group, 32_768))
    assert.deepStrictEqual(state.takeUnsaved(), {
      ...nothing,
      granted: new Map([[group.key, 32_768]])
    })
    state.see([web])
    assert.isUndefined(state.takeUnsaved())
    state.see([])
    assert.deepStrictEqual(state.takeUnsaved(), nothing)
  })

  it("reports the problems of a container once, and again when they change", () => {
    const state = new WatchState(nothing)
    const { problems } = desired(web, { "portmapper.publish": "80:http,81" })
    const text = 'web: not published: 80:http: container port "http": expected PORT or FIRST-LAST'
    assert.deepStrictEqual(state.report(problems, 5), [{ text, waiting: false }])
    assert.deepStrictEqual(state.report(problems, 9), [])
    assert.deepStrictEqual(
      state.problems.map(({ sinceMillis }) => sinceMillis),
      [5]
    )
    assert.deepStrictEqual(state.report([], 9), [])
    assert.deepStrictEqual(state.report(problems, 9), [{ text, waiting: false }])
  })
})
