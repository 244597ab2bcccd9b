import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"

/** A browser's history, as `push #…` and `replace #…`. */
const open = async (hash = "") => {
  vi.resetModules()
  const page = new EventTarget()
  const steps: Array<string> = []
  const location = { hash }
  const writing = (what: string) => (_: null, __: string, to: string) => {
    steps.push(`${what} ${to}`)
    location.hash = to
  }
  vi.stubGlobal("history", { pushState: writing("push"), replaceState: writing("replace") })
  vi.stubGlobal("location", location)
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page))
  const { followHash, portHref, show, view } = await import("../../../adapters/page/app/view.ts")
  followHash()
  return {
    ...{ portHref, show, view },
    take: () => steps.splice(0),
    goTo: (to: string, event: string) => {
      location.hash = to
      page.dispatchEvent(new Event(event))
    }
  }
}

beforeEach(() => void vi.useFakeTimers())
afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
})

describe("what the reader looks at", () => {
  it("is what the URL says, at first and whenever it changes", async () => {
    const { goTo, view } = await open("#filter=web")
    assert.strictEqual(view.value.filter, "web")
    goTo("#filter=db", "hashchange")
    assert.strictEqual(view.value.filter, "db")
    goTo("#", "popstate")
    assert.strictEqual(view.value.filter, "")
  })

  it("is a step of the history where another port or part is opened, which Back undoes", async () => {
    const { show, take } = await open()
    show({ filter: "w" })
    show({ chosen: "a" })
    // What was typed just before stays with the step before.
    assert.deepStrictEqual(take(), ["replace #filter=w", "push #filter=w&port=a"])
    show({ chosen: undefined, pane: "events" })
    assert.deepStrictEqual(take(), ["replace #filter=w&port=a", "push #filter=w&pane=events"])
    show({ pane: "host" })
    assert.deepStrictEqual(take(), ["replace #filter=w&pane=events", "push #filter=w&pane=host"])
    vi.advanceTimersByTime(1000)
    assert.deepStrictEqual(take(), [])
  })

  it("is written to the URL once a reader has typed, and no step", async () => {
    const { show, take, view } = await open()
    for (const filter of ["w", "we", "web"]) {
      show({ filter })
      assert.strictEqual(view.value.filter, filter)
      vi.advanceTimersByTime(199)
    }
    assert.deepStrictEqual(take(), [])
    vi.advanceTimersByTime(1)
    assert.deepStrictEqual(take(), ["replace #filter=web"])
  })

  it("is not overwritten by what was typed before the reader went elsewhere", async () => {
    const { goTo, show, take, view } = await open()
    show({ filter: "web" })
    goTo("#filter=db", "popstate")
    vi.advanceTimersByTime(1000)
    assert.deepStrictEqual([take(), view.value.filter], [[], "db"])
  })

  it("is kept in the link to a port", async () => {
    const { portHref } = await open("#filter=web&port=a")
    assert.strictEqual(portHref("b c"), "#filter=web&port=b+c")
  })
})
