/**
 * Carries raw requests to any plugin, over its Unix socket or a URL: what is sent is what was written, and whatever comes
 * back is an answer. For the conformance kit; whoever wants to be served uses the client.
 */
import { Effect } from "effect"
import { NoAnswer, type Wire } from "../../src/testing/conformance/Wire.ts"
import { HttpCode, type HttpError, httpClient } from "../node/HttpClient.ts"
import type { PluginAddress } from "./PluginAddress.ts"

export const httpWire = (address: PluginAddress): Wire => {
  // A plugin of ours gives a call up after 10 s.
  const http = httpClient(address, { answerTimeoutMillis: 12_000, maxBodyBytes: 16 * 1024 * 1024 })
  return {
    send: ({ method, path, headers, body }) =>
      http
        .ask({
          method,
          path,
          headers: [...headers.flat(), "Content-Length", String(Buffer.byteLength(body))],
          body
        })
        .pipe(
          Effect.map((answer) => ({
            ...answer,
            headers: Object.fromEntries(
              Object.entries(answer.headers).map(([name, value]) => [name, String(value)])
            )
          })),
          Effect.mapError((error) => new NoAnswer({ detail: problemText(error) }))
        )
  }
}

const problemText = ({ code, message }: HttpError): string => {
  if (code.startsWith("HPE_")) return `what answers is no HTTP (${message})`
  const known: Readonly<Record<string, string>> = {
    ENOENT: "no such socket",
    ECONNREFUSED: "nobody serves it",
    EACCES: "this user may not use it",
    ECONNRESET: "the connection broke",
    [HttpCode.tooLong]: "the answer is too long"
  }
  return known[code] ?? message
}
