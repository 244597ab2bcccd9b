/**
 * Carries raw requests to any plugin, over its Unix socket or a URL: what is sent is what was written, and whatever comes
 * back is an answer. For the conformance kit; whoever wants to be served uses the client.
 */
import * as Http from "node:http"
import * as Https from "node:https"
import { Effect } from "effect"
import { NoAnswer, type Wire } from "../../src/testing/conformance/Wire.ts"

/** `socketPath`, or `http://` or `https://`. */
export type WireAddress = { readonly socketPath: string } | { readonly url: URL }

/** A plugin of ours gives a call up after 10 s. */
const timeoutMillis = 12_000

/** No more than this is read of an answer. */
const maxBodyBytes = 16 * 1024 * 1024

export const httpWire = (address: WireAddress): Wire => ({
  send: ({ method, path, headers, body }) =>
    Effect.callback((resume) => {
      const failed = (detail: string) => resume(Effect.fail(new NoAnswer({ detail })))
      const bytes = Buffer.from(body)
      const request = open(address, {
        method,
        path,
        headers: [...headers.flat(), "Content-Length", String(bytes.length)],
        setHost: false,
        agent: false
      })
      request.setTimeout(timeoutMillis, () =>
        request.destroy(new Error(`none within ${timeoutMillis / 1000} s`))
      )
      request.on("error", (error) => failed(problemText(error)))
      request.on("response", (response) => {
        const chunks: Array<Buffer> = []
        let length = 0
        response.on("data", (chunk: Buffer) => {
          length += chunk.length
          if (length > maxBodyBytes) response.destroy(new Error("the answer is too long"))
          else chunks.push(chunk)
        })
        response.on("error", (error) => failed(error.message))
        response.on("end", () =>
          resume(
            Effect.succeed({
              status: response.statusCode ?? 0,
              headers: Object.fromEntries(
                Object.entries(response.headers).map(([name, value]) => [name, String(value)])
              ),
              body: Buffer.concat(chunks).toString()
            })
          )
        )
      })
      request.end(bytes)
      return Effect.sync(() => request.destroy())
    })
})

const problemText = (error: NodeJS.ErrnoException): string => {
  const code = error.code ?? ""
  if (code.startsWith("HPE_")) return `what answers is no HTTP (${error.message})`
  const known: Readonly<Record<string, string>> = {
    ENOENT: "no such socket",
    ECONNREFUSED: "nobody serves it",
    EACCES: "this user may not use it",
    ECONNRESET: "the connection broke"
  }
  return known[code] ?? error.message
}

const open = (address: WireAddress, options: Http.RequestOptions): Http.ClientRequest => {
  if ("socketPath" in address) return Http.request({ ...options, socketPath: address.socketPath })
  return address.url.protocol === "https:"
    ? Https.request(address.url, { ...options, path: options.path ?? "/" })
    : Http.request(address.url, options)
}
