import { afterEach, assert, beforeEach, describe, it, vi } from "@effect/vitest"
import { hostOf, rowOf, stateOf } from "../rows.ts"

/** A browser's connection, which the test opens, feeds and breaks. */
class Source extends EventTarget {
  static readonly opened: Array<Source> = []
  static readonly CONNECTING = 0
  static readonly OPEN = 1
  static readonly CLOSED = 2
  readyState: number = Source.CONNECTING
  readonly url: string

  constructor(url: string) {
    super()
    this.url = url
    Source.opened.push(this)
  }

  close(): void {
    this.readyState = Source.CLOSED
  }

  send(name: "state" | "change", data: object): void {
    this.readyState = Source.OPEN
    this.dispatchEvent(new MessageEvent(name, { data: JSON.stringify(data) }))
  }

  /** The browser connects again by itself, or gives up: it was refused. */
  fail(as: "again" | "refused"): void {
    this.readyState = as === "refused" ? Source.CLOSED : Source.CONNECTING
    this.dispatchEvent(new Event("error"))
  }
}

const beginMillis = 1_000_000
const state = (more: object = {}) => ({ ...stateOf([rowOf(1)]), at: beginMillis, ...more })
const change = (more: object = {}) => ({
  ...{
    sequence: 2,
    at: beginMillis,
    host: hostOf(),
    rows: [],
    gone: [],
    counts: [],
    events: [],
    checks: null
  },
  ...more
})

/** The page in a browser of its own. */
const open = async () => {
  vi.resetModules()
  const page = new EventTarget()
  const tab = Object.assign(new EventTarget(), { visibilityState: "visible" })
  vi.stubGlobal("document", tab)
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page))
  const { ahead, heardAt, link, model, stayConnected } = await import(
    "../../../adapters/page/app/connection.ts"
  )
  stayConnected()
  return {
    ...{ ahead, heardAt, link, model },
    last: () => Source.opened.at(-1) as Source,
    tell: (event: Event) => page.dispatchEvent(event),
    turn: (visibilityState: string) => {
      tab.visibilityState = visibilityState
      tab.dispatchEvent(new Event("visibilitychange"))
    }
  }
}

const connections = () => Source.opened.length

beforeEach(() => {
  vi.useFakeTimers({ now: beginMillis })
  vi.stubGlobal("EventSource", Source)
  // In the middle of its spread.
  vi.spyOn(Math, "random").mockReturnValue(0.5)
  Source.opened.length = 0
})

afterEach(() => {
  vi.useRealTimers()
  vi.unstubAllGlobals()
  vi.restoreAllMocks()
})

describe("the page's connection", () => {
  it("is live with the first state, and knows how far the plugin's clock is ahead by each change", async () => {
    const { ahead, last, link, model } = await open()
    assert.deepStrictEqual([link.value.phase, last().url], ["connecting", "api/events"])
    // Nothing can be changed yet.
    last().send("change", change())
    assert.deepStrictEqual([model.value], [undefined])
    last().send("state", state({ at: beginMillis + 500 }))
    assert.deepStrictEqual([link.value.phase, ahead.value, model.value?.rows.size], ["live", 500, 1])
    last().send("change", change({ gone: [1], at: beginMillis + 700 }))
    assert.deepStrictEqual([model.value?.rows.size, ahead.value], [0, 700])
    // That of a look some seconds ago.
    last().send("state", state({ at: beginMillis - 5000 }))
    assert.strictEqual(ahead.value, 700)
  })

  it("is none while the page is hidden or left, and a new one when it is looked at again", async () => {
    const { last, link, tell, turn } = await open()
    last().send("state", state())
    turn("hidden")
    assert.deepStrictEqual([link.value.phase, last().readyState], ["hidden", Source.CLOSED])
    vi.advanceTimersByTime(3_600_000)
    assert.strictEqual(connections(), 1)
    turn("visible")
    assert.deepStrictEqual([link.value.phase, connections()], ["connecting", 2])
    tell(new Event("pagehide"))
    assert.strictEqual(last().readyState, Source.CLOSED)
    const shown = (persisted: boolean) => Object.assign(new Event("pageshow"), { persisted })
    tell(shown(false))
    assert.strictEqual(connections(), 2)
    tell(shown(true))
    tell(new Event("online"))
    assert.strictEqual(connections(), 4)
  })

  it("leaves the first try after a loss to the browser, of which nothing is seen", async () => {
    const { last, link } = await open()
    last().send("state", state())
    last().fail("again")
    assert.deepStrictEqual([link.value.phase, connections()], ["live", 1])
    last().fail("again")
    assert.strictEqual(link.value.phase, "lost")
  })

  it("is tried again after pauses that grow to five seconds, and begin anew with what is heard", async () => {
    const { last, link } = await open()
    const pauses: Array<number> = []
    vi.stubGlobal("fetch", () => Promise.reject(new Error("refused")))
    const lose = () => {
      last().fail("refused")
      const now = link.value
      if (now.phase !== "lost") throw new Error(now.phase)
      pauses.push(now.retryAt - Date.now())
      const before = connections()
      vi.advanceTimersByTime((pauses.at(-1) ?? 0) - 1)
      assert.strictEqual(connections(), before)
      vi.advanceTimersByTime(1)
      assert.strictEqual(connections(), before + 1)
    }
    for (let time = 0; time < 5; time++) lose()
    last().send("state", state())
    lose()
    assert.deepStrictEqual(pauses, [1000, 2000, 4000, 5000, 5000, 1000])
  })

  it("is lost after 40 seconds in which nothing was heard", async () => {
    const { last, link } = await open()
    last().send("state", state())
    vi.advanceTimersByTime(39_999)
    last().send("change", change())
    vi.advanceTimersByTime(39_999)
    assert.strictEqual(link.value.phase, "live")
    vi.advanceTimersByTime(1)
    assert.strictEqual(link.value.phase, "lost")
    assert.strictEqual(last().readyState, Source.CLOSED)
  })

  it("says why the plugin refused it, if the plugin says so", async () => {
    const reasonOf = async (answer: () => Promise<Response>) => {
      vi.stubGlobal("fetch", answer)
      const { last, link } = await open()
      last().fail("refused")
      await vi.advanceTimersByTimeAsync(0)
      return link.value.phase === "lost" ? link.value.reason : link.value.phase
    }
    const json = (body: string, status: number) => () => Promise.resolve(new Response(body, { status }))
    assert.strictEqual(await reasonOf(json('{"Err":"too many pages"}', 503)), "too many pages")
    assert.strictEqual(await reasonOf(json("<html>", 502)), "HTTP status 502")
    assert.isUndefined(await reasonOf(json("", 200)))
    assert.isUndefined(await reasonOf(() => Promise.reject(new Error("no network"))))
  })

  it("says nothing of a refusal that is over", async () => {
    const answers: Array<(answer: Response) => void> = []
    vi.stubGlobal("fetch", () => new Promise<Response>((resolve) => answers.push(resolve)))
    const { last, link } = await open()
    last().fail("refused")
    vi.advanceTimersByTime(1000)
    last().fail("refused")
    answers[0]?.(new Response('{"Err":"too many pages"}', { status: 503 }))
    await vi.advanceTimersByTimeAsync(0)
    assert.deepInclude(link.value, { phase: "lost", reason: undefined })
  })

  it("is not lost with one that it has closed", async () => {
    const { last, link, tell } = await open()
    const before = last()
    tell(new Event("online"))
    last().send("state", state())
    before.fail("refused")
    assert.deepStrictEqual([link.value.phase, last().readyState], ["live", Source.OPEN])
  })
})
