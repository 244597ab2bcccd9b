/** An Engine with scripted answers, path by path, and a list of its requests. */
import * as Http from "node:http"
import * as Https from "node:https"
import type { AddressInfo } from "node:net"
import * as Path from "node:path"
import { Effect, type Scope } from "effect"
import { temporaryFolder } from "./folders.ts"

export interface Scripted {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** Text is sent unchanged, anything else as JSON. */
  readonly body?: unknown
  /** No answer at all. */
  readonly silent?: true
  /** The connection stays open after the body. */
  readonly open?: true
}

/** By path without version and query; a missing path is answered by 404. */
export type Script = Record<string, Scripted>

export interface FakeEngine {
  readonly path: string
  /** The targets of all requests so far, since the list was last emptied. */
  readonly asked: Array<string>
}

export const ping = (version: string): Script => ({
  "/_ping": { headers: { "Api-Version": version }, body: "OK" }
})

/** On a Unix socket; the script may change while it serves. */
export const fakeEngine = Effect.fnUntraced(function* (script: Script) {
  const path = Path.join(yield* temporaryFolder, "api.sock")
  const asked: Array<string> = []
  yield* listening(Http.createServer(answering(script, asked)), path)
  return { path, asked } satisfies FakeEngine
})

/** On a port of 127.0.0.1, for clients with a certificate; returns the port. */
export const fakeTlsEngine = (
  script: Script,
  options: Https.ServerOptions
): Effect.Effect<number, never, Scope.Scope> =>
  Effect.map(
    listening(Https.createServer({ ...options, requestCert: true }, answering(script, [])), {
      host: "127.0.0.1",
      port: 0
    }),
    (server) => (server.address() as AddressInfo).port
  )

const answering =
  (script: Script, asked: Array<string>): Http.RequestListener =>
  (request, response) => {
    const target = request.url ?? ""
    asked.push(target)
    const path = target.replace(/^\/v\d+\.\d+/, "").replace(/\?.*/, "")
    const { body = "", headers = {}, open, silent, status = 200 } = script[path] ?? missing
    if (silent) return
    response.writeHead(status, headers)
    const text = typeof body === "string" ? body : JSON.stringify(body)
    if (open) response.write(text)
    else response.end(text)
  }

const missing: Scripted = { status: 404, body: { message: "page not found" } }

const listening = <S extends Http.Server>(server: S, where: string | { host: string; port: number }) =>
  Effect.acquireRelease(
    Effect.callback<S>((resume) => {
      server.listen(where, () => resume(Effect.succeed(server)))
    }),
    () =>
      Effect.sync(() => {
        server.closeAllConnections()
        server.close()
      })
  )
