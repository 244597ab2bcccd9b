/**
 * Debian's Chromium, driven over a pipe; inside a namespace of a lab it reaches what the namespace reaches, and nothing
 * else. A scope ends it.
 */
import { chmodSync, readFileSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { type BrowserContextOptions, type Browser as Chromium, chromium, type Page } from "playwright-core"
import { temporaryFolder } from "../support/folders.ts"
import type { Namespace } from "./Namespace.ts"
import { LabError } from "./Process.ts"
import { patienceMillis } from "./patience.ts"

export interface Tab {
  readonly page: Page
  /** What the page wrote on its console as a warning or an error, and what it threw, so far. */
  readonly complaints: Array<string>
  /** One step, each with the patience of a test. */
  readonly step: <A>(does: (page: Page) => Promise<A>) => Effect.Effect<A, LabError>
  /** What axe finds wrong: the rule, and the elements. */
  readonly unfit: Effect.Effect<ReadonlyArray<string>, LabError>
}

export interface Browser {
  readonly open: (url: string, options?: BrowserContextOptions) => Effect.Effect<Tab, LabError>
}

export const start = Effect.fn("Browser.start")(function* (
  namespace?: Namespace
): Effect.fn.Return<Browser, LabError, Scope.Scope> {
  const inside = namespace === undefined ? "" : `ip netns exec ${namespace.name} `
  const program = join(yield* temporaryFolder, "chromium")
  writeFileSync(program, `#!/bin/sh\nexec ${inside}chromium "$@"\n`)
  chmodSync(program, 0o755)
  // Its sandbox does not start as root.
  const launch = attempt("launch", () =>
    chromium.launch({ executablePath: program, args: ["--no-sandbox"], timeout: patienceMillis })
  )
  const browser = yield* Effect.acquireRelease(launch, (running) =>
    Effect.ignore(attempt("close", () => running.close()))
  )
  return { open: (url, options) => open(browser, url, options) }
})

const open = Effect.fn("Browser.open")(function* (
  browser: Chromium,
  url: string,
  options: BrowserContextOptions = {}
) {
  const context = yield* attempt("newContext", () => browser.newContext({ locale: "en-GB", ...options }))
  const page = yield* attempt("newPage", () => context.newPage())
  page.setDefaultTimeout(patienceMillis)
  const complaints: Array<string> = []
  page.on("console", (message) => {
    if (["warning", "error"].includes(message.type())) complaints.push(message.text())
  })
  page.on("pageerror", (error) => complaints.push(String(error)))
  yield* attempt(`open ${url}`, () => page.goto(url))
  const step: Tab["step"] = (does) => attempt(String(does), () => does(page))
  return { page, complaints, step, unfit: Effect.suspend(() => step(findUnfit)) }
})

const attempt = <A>(operation: string, does: () => Promise<A>): Effect.Effect<A, LabError> =>
  Effect.tryPromise({
    try: does,
    catch: (error) => new LabError({ operation, detail: String(error) })
  })

interface AxeResult {
  readonly violations: ReadonlyArray<{
    readonly id: string
    readonly nodes: ReadonlyArray<{ readonly html: string; readonly failureSummary?: string }>
  }>
}

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js")

/** The debugger evaluates, so that the page's Content-Security-Policy has no say. */
const findUnfit = async (page: Page): Promise<ReadonlyArray<string>> => {
  await page.evaluate(readFileSync(axe, "utf8"))
  const { violations } = await page.evaluate<AxeResult>("axe.run()")
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary}`)
  )
}
