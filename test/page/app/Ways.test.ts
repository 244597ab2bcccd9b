import { assert, describe, it } from "@effect/vitest"
import { Ways } from "../../../adapters/page/app/Ways.tsx"
import type { PageRow } from "../../../src/page/PageState.ts"
import { rowOf, rowsOf } from "../rows.ts"
import { html, plain, texts } from "./rendered.ts"

/** Each way as `FROM: OVER`, and what is said of the socket. */
const ways = (more: Partial<PageRow>) => {
  const [row] = rowsOf(rowOf(1, more))
  if (row === undefined) throw new Error("no row")
  const shown = html(Ways, { row })
  const [from, over] = [texts(shown, "dt"), texts(shown, "dd")]
  return [
    ...from.map((each, index) => `${each}: ${over[2 * index]} to ${over[2 * index + 1]}`),
    plain(/<p.*<\/p>/.exec(shown)?.[0] ?? "")
  ]
}

const carriers = (kernel: boolean, relay: "loopback" | "everything" | null, socket = true) => ({
  carriers: { socket, kernel, relay }
})
const held = "A socket of the plugin holds 8001/tcp: no other process gets it."
const to = "172.31.0.2:80"

describe("the ways of a port's traffic", () => {
  it("are the kernel's from elsewhere, and the relay's from this host", () => {
    assert.deepStrictEqual(ways(carriers(true, "loopback")), [
      `From elsewhere: the kernel's map to ${to}`,
      `From 127.0.0.1 and ::1 of this host: the relay to ${to}`,
      held
    ])
    assert.deepStrictEqual(ways(carriers(true, null)), [`From elsewhere: the kernel's map to ${to}`, held])
  })

  it("are one where the relay has everything", () => {
    assert.deepStrictEqual(ways({ ...carriers(false, "everything"), mode: "proxy" }), [
      `From everywhere: the relay to ${to}`,
      held
    ])
  })

  it("are the Engine's or the network's where the mode leaves them to these", () => {
    const none = "No socket of the plugin holds 8001/tcp."
    assert.deepStrictEqual(ways({ ...carriers(false, null, false), mode: "engine" }), [
      `From elsewhere: the Engine's own rules to ${to}`,
      none
    ])
    assert.deepStrictEqual(ways({ ...carriers(false, null, false), mode: "routed", port: 0 }), [
      `From elsewhere: the network's routes to ${to}`,
      "It has no host port."
    ])
  })

  it("are none while nothing serves it, and unknown of another plugin's port", () => {
    const problem = { severity: "error", reason: "taken", remedy: null } as const
    const nothing = `From everywhere: nothing, until it is served to ${to}`
    assert.deepStrictEqual(ways({ ...carriers(false, null), problem }), [nothing, held])
    assert.deepStrictEqual(ways({ carriers: null, problem: { ...problem, severity: "warning" } }), [
      `From everywhere: as mode nat does to ${to}`,
      ""
    ])
    // What is wrong with it may concern one way alone, or none.
    assert.include(ways({ ...carriers(true, null), problem })[0], "the kernel's map")
    const stale = { ...problem, severity: "warning" } as const
    assert.include(
      ways({ ...carriers(false, null), mode: "engine", problem: stale })[0],
      "the Engine's own rules"
    )
  })

  it("lead to the container by its name, if it has one", () => {
    const backend = { address: "172.31.0.2", port: 80, container: "web-1/0123456789ab", slots: null }
    assert.strictEqual(
      ways({ ...carriers(true, null), backend })[0],
      "From elsewhere: the kernel's map to web-1"
    )
  })
})
