/** A page without a browser: reads the server-sent events of a Unix socket, and connects again whenever they end. */
import * as Http from "node:http"
import { Effect, type Scope } from "effect"
import { applyChange, fromState, type Model } from "../../adapters/page/app/model.ts"
import { until } from "./until.ts"

export interface PageReader {
  /** Waits until the page shows it; returns what it shows. */
  readonly shows: (isSo: (model: Model) => boolean) => Effect.Effect<Model>
  /** Why each attempt to connect that failed did so. */
  readonly failures: () => ReadonlyArray<string>
}

const retryMillis = 20

export const readPage = (socketPath: string): Effect.Effect<PageReader, never, Scope.Scope> =>
  Effect.gen(function* () {
    let model: Model | undefined
    let lastEventId = ""
    const failures: Array<string> = []
    const page: { request?: Http.ClientRequest; timer?: NodeJS.Timeout; closed: boolean } = { closed: false }
    const take = (block: string) => {
      const [, id, name, data] = /^id: (.*)\nevent: (.*)\ndata: (.*)$/.exec(block) ?? []
      if (data === undefined) return
      lastEventId = id ?? ""
      if (name === "state") model = fromState(JSON.parse(data), model)
      else if (model !== undefined) model = applyChange(model, JSON.parse(data))
    }
    const connect = () => {
      const headers = { Host: "localhost", "Last-Event-ID": lastEventId }
      const again = () => {
        if (!page.closed) page.timer = setTimeout(connect, retryMillis)
      }
      page.request = Http.get({ socketPath, path: "/api/events", agent: false, headers }, (response) => {
        let text = ""
        response.setEncoding("utf8").on("data", (chunk: string) => {
          const blocks = (text + chunk).split("\n\n")
          text = blocks.pop() ?? ""
          for (const block of blocks) take(block)
        })
        response.on("error", () => {}).on("close", again)
      }).on("error", (error: NodeJS.ErrnoException) => {
        failures.push(error.code ?? error.message)
        again()
      })
    }
    yield* Effect.acquireRelease(Effect.sync(connect), () =>
      Effect.sync(() => {
        page.closed = true
        clearTimeout(page.timer)
        page.request?.destroy()
      })
    )
    return {
      shows: (isSo) =>
        Effect.map(
          until(
            Effect.sync(() => model),
            (shown) => shown !== undefined && isSo(shown)
          ),
          (shown) => shown as Model
        ),
      failures: () => failures
    }
  })
