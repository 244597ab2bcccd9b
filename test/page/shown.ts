/** The page in Chromium, with a state of the test's own and without a plugin. */
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { layer, type Vitest } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import type { PageState } from "../../src/page/PageState.ts"
import * as Browser from "../lab/Browser.ts"
import { describeNeeding } from "../lab/describeLab.ts"
import { listening } from "../support/listening.ts"

const built = new URL("../../dist/bin/page.html", import.meta.url)

/** One for all tests of a file. */
class Chromium extends Context.Service<Chromium, Browser.Browser>()("test/page/Chromium") {
  static readonly layer = Layer.effect(Chromium, Browser.start())
}

export const describeInChromium = (
  title: string,
  tests: (it: Vitest.MethodsNonLive<Chromium>) => void
): void => describeNeeding(title, ["chromium"], () => layer(Layer.orDie(Chromium.layer))(tests))

/** Opens the page of a plugin that says this, at this hash. */
export const shown = Effect.fnUntraced(function* (state: PageState, hash = "") {
  const server = createServer((request, response) => {
    if (request.url === "/") return response.end(readFileSync(built))
    response.setHeader("Content-Type", "text/event-stream")
    return response.write(`event: state\ndata: ${JSON.stringify(state)}\n\n`)
  })
  const url = yield* listening(server)
  yield* Effect.addFinalizer(() => Effect.sync(() => server.closeAllConnections()))
  const browser = yield* Chromium
  const tab = yield* browser.open(`${url}/${hash}`, { viewport: { width: 2400, height: 900 } })
  const hashNow = Effect.sync(() => new URL(tab.page.url()).hash)
  return { ...tab, hashNow }
})
