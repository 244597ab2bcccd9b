import "./english.ts"
import { assert, describe, it } from "@effect/vitest"
import { Host } from "../../../adapters/page/app/Host.tsx"
import type { PageChecks, PageHost } from "../../../src/page/PageState.ts"
import { hostOf, modelOf } from "../rows.ts"
import { html, plain, texts } from "./rendered.ts"

const shown = (host: Partial<PageHost>, checks: PageChecks | null = null) =>
  html(Host, { model: { ...modelOf(), host: hostOf(host), checks } })

/** How pressing each limit is, in their order: descriptors, memory, threads. */
const pressing = (host: Partial<PageHost>) =>
  [...shown(host).matchAll(/<div( data-state="(\w+)")?><dt>/g)].map(([, , state]) => state ?? "fine")

describe("the limits of a host", () => {
  it("warn from three quarters on, and are an error from nine tenths on", () => {
    const used = (descriptors: number) => pressing({ descriptors: { used: descriptors, limit: 1000 } })[0]
    assert.deepStrictEqual([749, 750, 899, 900, 2000].map(used), [
      "fine",
      "warning",
      "warning",
      "error",
      "error"
    ])
  })

  it("are no limits where there is none, and may be full where that is as it should be", () => {
    assert.deepStrictEqual(
      pressing({ memory: { used: 1e12, limit: null }, relayThreads: { used: 2, limit: 2 } }),
      ["fine", "fine", "fine"]
    )
  })

  it("have been reached where the relay refused clients", () => {
    assert.notInclude(shown({}), "LimitNOFILE")
    assert.include(
      plain(shown({ relayRefused: { tcp: 0, udp: 7 } })),
      "The relay refused 0 connections and 7 UDP flows for lack of descriptors."
    )
  })
})

describe("the checks of a host", () => {
  it("are listed with the worst first, each with its remedy", () => {
    const check = (name: string, status: "ok" | "warn" | "fail", remedy: string | null = null) => ({
      ...{ name, status, found: `${name} found`, remedy }
    })
    const all = [check("a", "ok"), check("b", "warn", "do it"), check("c", "fail"), check("d", "warn")]
    const items = texts(shown({}, { at: 0, checks: all }), "li")
    assert.deepStrictEqual(items, [
      "c: failc found",
      "b: warnb founddo itCopy",
      "d: warnd found",
      "a: oka found"
    ])
  })

  it("are awaited before the first are done", () => {
    assert.include(plain(shown({})), "Checking this host …")
  })
})
