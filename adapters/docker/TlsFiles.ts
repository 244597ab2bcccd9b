/**
 * The three files of a TLS server that requires client certificates. They are checked before anything listens, and
 * errors name the file; OpenSSL's own messages name neither the file nor the reason.
 */
import { createPrivateKey, X509Certificate } from "node:crypto"
import * as Fs from "node:fs"
import { createSecureContext } from "node:tls"
import { Effect, Result, type Scope } from "effect"
import { TlsFileError } from "../node/HttpClient.ts"
import { systemReason } from "./systemReason.ts"

export interface TlsFiles {
  /** The server's certificate and its intermediates, as PEM. */
  readonly certFile: string
  /** The key of that certificate, as PEM without a passphrase. */
  readonly keyFile: string
  /** The CAs that must have signed the clients' certificates, as PEM. */
  readonly caFile: string
}

/** The contents of the three files, fit for `node:tls`. */
export interface TlsMaterial {
  readonly cert: string
  readonly key: string
  readonly ca: string
}

/** Registers an effect to run at each certificate renewal, until the scope closes. */
export type Renewals = (renew: Effect.Effect<void>) => Effect.Effect<void, never, Scope.Scope>

/** Reads the files, and checks each and that the key belongs to the certificate. */
export const readTlsFiles = Effect.fnUntraced(function* ({
  certFile,
  keyFile,
  caFile
}: TlsFiles): Effect.fn.Return<TlsMaterial, TlsFileError> {
  const cert = yield* read(certFile)
  const key = yield* read(keyFile)
  const ca = yield* read(caFile)
  const [own] = yield* certificates(certFile, cert)
  yield* certificates(caFile, ca)
  const privateKey = yield* attempt(keyFile, keyDetail(key), () => createPrivateKey(key))
  if (
    !Result.getOrElse(
      Result.try(() => own.checkPrivateKey(privateKey)),
      () => false
    )
  )
    return yield* new TlsFileError({
      file: keyFile,
      detail: `the key does not belong to the certificate in ${certFile}`
    })
  yield* attempt(certFile, "OpenSSL refuses it", () => createSecureContext({ cert, key, ca }))
  return { cert, key, ca }
})

const read = (file: string): Effect.Effect<string, TlsFileError> =>
  Effect.try({
    try: () => Fs.readFileSync(file, "utf8"),
    catch: (error) => new TlsFileError({ file, detail: systemReason(error) })
  })

const pemCertificate = /-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/gs

const certificates = Effect.fnUntraced(function* (file: string, text: string) {
  const [first, ...rest] = text.match(pemCertificate) ?? []
  if (first === undefined) return yield* new TlsFileError({ file, detail: "no PEM certificate is in it" })
  const parse = (pem: string) =>
    attempt(file, "a certificate in it can't be read", () => new X509Certificate(pem))
  return [yield* parse(first), ...(yield* Effect.forEach(rest, parse))] as const
})

const keyDetail = (text: string): string => {
  if (!text.includes("PRIVATE KEY-----")) return "no PEM private key is in it"
  return text.includes("ENCRYPTED")
    ? "the key has a passphrase; a key without one is needed"
    : "the key in it can't be read"
}

const attempt = <A>(file: string, detail: string, run: () => A): Effect.Effect<A, TlsFileError> =>
  Effect.try({ try: run, catch: () => new TlsFileError({ file, detail }) })
