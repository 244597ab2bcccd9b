import { assert, describe, it } from "@effect/vitest"
import type { ContainerSubscription } from "../../adapters/engine/ContainerSubscription.ts"
import { desiredBySubscription } from "../../adapters/engine/Desired.ts"
import { problemOf } from "../../adapters/engine/Problems.ts"
import { WatchState } from "../../adapters/engine/WatchState.ts"
import type { PortBinding } from "../../src/protocol/PortBinding.ts"
import { attachment, container, desired } from "./containers.ts"

const web = container("web")
const nothing = { follows: [], granted: new Map<string, number>() }

const subscription = (publish: string, more: Partial<ContainerSubscription> = {}): ContainerSubscription => ({
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

const released = (of: ReturnType<typeof groupOf>, port: number) =>
  of.group.entries.map(({ protocol, host }) => ({
    protocol,
    host,
    port,
    backend: { address: undefined, port: 0 }
  }))

describe("the state of a watch", () => {
  it("does not desire again what was unmapped, until its container was gone", () => {
    const state = new WatchState(nothing)
    const group = groupOf("8080:80")
    state.mapped(group, answer(group, 8080))
    assert.isFalse(state.dismiss(released(group, 8081)))
    assert.isTrue(state.dismiss(released(group, 8080)))
    assert.deepStrictEqual([...state.observed.keys()], [])
    assert.deepStrictEqual(state.undismissed([group]), [])
    assert.deepStrictEqual(state.undismissed([]), [])
    assert.deepStrictEqual(state.undismissed([group]), [group])
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
    state.report([{ ...problemOf(third, { _tag: "", message: "it is unhealthy" }), waiting: true }], 0)
    const unmapped = first.group.entries.map(({ protocol, host, backend }) => ({
      protocol,
      host,
      port: 8080,
      backend
    }))
    assert.isTrue(state.dismiss(unmapped))
    assert.deepStrictEqual([...state.observed.keys()], [second.key])
    assert.deepStrictEqual(state.undismissed([first, second, third]), [second, third])
    assert.lengthOf(state.problems, 1)
    assert.isTrue(state.dismiss(released(third, 8080)))
    assert.lengthOf(state.problems, 0)
  })

  it("drops the ports of a subscription that were unmapped while its container was stopped", () => {
    const state = new WatchState({ ...nothing, follows: [subscription("8080-8081:80-81")] })
    const stopped = [{ ...web, running: false }]
    const [first] = state.subscriptions
    if (first === undefined) throw new Error("no subscription")
    const { problems } = desiredBySubscription(first, stopped)
    state.report(problems, 0)
    const [, second] = problems
    if (second?.desired === undefined) throw new Error("two ports wait")
    assert.isTrue(state.dismiss(released(second.desired, 8081)))
    assert.deepStrictEqual(state.subscriptions, [subscription("8080-8081:80-81", { without: [81] })])
    assert.lengthOf(state.problems, 1)
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
    assert.deepStrictEqual(state.takeUnsaved(), { follows: [], granted: new Map([[group.key, 32_768]]) })
    state.see([web])
    assert.isUndefined(state.takeUnsaved())
    state.see([])
    assert.deepStrictEqual(state.takeUnsaved(), { follows: [], granted: new Map() })
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
