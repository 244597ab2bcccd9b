/**
 * Checks whether an Engine can reach the plugin with the TLS settings of its spec file. The Engine would log a wrong
 * file only when the first container starts; the same request from here shows it at once.
 */
import { X509Certificate } from "node:crypto"
import * as Fs from "node:fs"
import * as Https from "node:https"
import { Effect, Result, Schema } from "effect"
import { parseAddress } from "../../src/protocol/Address.ts"
import type { ClientTls } from "./SpecFile.ts"
import { systemReason } from "./systemReason.ts"

/** Why the Engine can't reach the plugin, in one clause. */
class SpecCheckError extends Schema.TaggedError<SpecCheckError>()("SpecCheckError", {
  url: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.url}: ${this.detail}`
  }
}

const timeoutMillis = 5_000

/** Sends one request that changes nothing, with the client's files; any answer is a success. */
export const checkSpec = Effect.fnUntraced(function* (
  url: string,
  { caFile, certFile, keyFile }: ClientTls
): Effect.fn.Return<void, SpecCheckError> {
  const [ca, cert, key] = yield* Effect.forEach([caFile, certFile, keyFile], (file) => read(url, file))
  yield* Effect.callback<void, SpecCheckError>((resume) => {
    const failed = (error: unknown) =>
      resume(Effect.fail(new SpecCheckError({ url, detail: systemReason(error) })))
    try {
      const request = Https.request(url, {
        method: "GET",
        path: "/Plugin.Activate",
        agent: false,
        timeout: timeoutMillis,
        ca,
        cert,
        key,
        checkServerIdentity: (host, { raw }) => refusal(host, new X509Certificate(raw))
      })
      request.once("response", (response) => {
        response.resume()
        resume(Effect.void)
      })
      request.once("timeout", () => request.destroy(new Error("no answer")))
      request.once("error", failed)
      request.end()
    } catch (error) {
      failed(error)
    }
  })
})

const read = (url: string, file: string | undefined): Effect.Effect<Buffer | undefined, SpecCheckError> =>
  Effect.try({
    try: () => (file === undefined ? undefined : Fs.readFileSync(file)),
    catch: (error) => new SpecCheckError({ url, detail: `${file}: ${systemReason(error)}` })
  })

/** Go's rule: the subject's common name is ignored. */
const refusal = (host: string, certificate: X509Certificate): Error | undefined => {
  const address = Result.getOrUndefined(parseAddress(host))
  const named =
    address === undefined
      ? certificate.checkHost(host, { subject: "never" })
      : certificate.checkIP(address.key)
  if (named !== undefined) return undefined
  return new Error(
    `the server's certificate is not for ${host} (it is for ${certificate.subjectAltName ?? "no name at all"})`
  )
}
