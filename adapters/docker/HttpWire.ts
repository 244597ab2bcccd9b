/**
 * Sends raw requests to any plugin, over its Unix socket or a URL: the bytes go out as written, and any response
 * counts as an answer. For the conformance kit; other callers use `PluginClient`.
 */
import { Effect } from "effect"
import { NoAnswer, type Wire } from "../../src/testing/conformance/Wire.ts"
import { HttpCode, type HttpError, httpClient } from "../node/HttpClient.ts"
import type { PluginAddress } from "./PluginAddress.ts"

export const httpWire = (address: PluginAddress): Wire => {
  // Our plugin gives up a call after 10 s.
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
  if (code.startsWith("HPE_")) return `the answer is not HTTP (${message})`
  const known: Readonly<Record<string, string>> = {
    ENOENT: "no such socket",
    ECONNREFUSED: "no process listens there",
    EACCES: "this user may not use it",
    ECONNRESET: "the connection broke",
    [HttpCode.tooLong]: "the answer is too long"
  }
  return known[code] ?? message
}
