/**
 * Certificates for tests (RFC 5280), made here from keys of Node's: two authorities, and the certificates each
 * signed.
 */
import { generateKeyPairSync, type KeyObject, sign } from "node:crypto"
import { writeFileSync } from "node:fs"
import { isIP } from "node:net"
import * as Path from "node:path"

export interface Certificate {
  readonly cert: string
  readonly key: string
}

export interface Certificates {
  readonly ca: Certificate
  /** For 127.0.0.1, ::1 and localhost; for servers only. */
  readonly server: Certificate
  readonly client: Certificate
  /** For localhost, as server and client. */
  readonly both: Certificate
  /** For plugin.example. */
  readonly named: Certificate
  /** A client's, signed by the other authority. */
  readonly foreign: Certificate
}

export const makeCertificates = (folder: string): Certificates => {
  const ca = make(folder, "ca", authority)
  const foreignCa = make(folder, "foreign-ca", authority)
  const local = subjectAltName("localhost", "127.0.0.1", "::1")
  return {
    ca,
    server: make(folder, "server", [leaf, local, extendedKeyUsage(serverAuth)], ca),
    client: make(folder, "client", [leaf, extendedKeyUsage(clientAuth)], ca),
    both: make(folder, "both", [leaf, subjectAltName("localhost")], ca),
    named: make(folder, "named", [leaf, subjectAltName("plugin.example")], ca),
    foreign: make(folder, "foreign", [leaf, extendedKeyUsage(clientAuth)], foreignCa)
  }
}

interface Signer extends Certificate {
  readonly name: Buffer
  readonly privateKey: KeyObject
}

const make = (folder: string, name: string, extensions: ReadonlyArray<Buffer>, signer?: Signer): Signer => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" })
  const subject = sequence(der(0x31, sequence(oid(2, 5, 4, 3), der(0x0c, Buffer.from(name)))))
  const issuer = signer ?? { name: subject, privateKey }
  const signed = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from(name)),
    ecdsaWithSha256,
    issuer.name,
    sequence(utcTime(Date.now() - day), utcTime(Date.now() + day)),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(...extensions))
  )
  const signature = sign("sha256", signed, issuer.privateKey)
  const base64 = sequence(signed, ecdsaWithSha256, bitString(0, signature)).toString("base64")
  const made = { cert: Path.join(folder, `${name}.pem`), key: Path.join(folder, `${name}.key`) }
  const lines = base64.replace(/.{64}(?=.)/g, "$&\n")
  writeFileSync(made.cert, `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`)
  writeFileSync(made.key, privateKey.export({ type: "pkcs8", format: "pem" }), { mode: 0o600 })
  return { ...made, name: subject, privateKey }
}

const day = 86_400_000

/** A value with its tag (X.690); the parts of a sequence follow each other. */
const der = (tag: number, ...parts: ReadonlyArray<Buffer>): Buffer => {
  const value = Buffer.concat(parts)
  const length = value.length
  const head = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 255]
  return Buffer.concat([Buffer.from([tag, ...head]), value])
}

const sequence = (...parts: ReadonlyArray<Buffer>): Buffer => der(0x30, ...parts)

const bitString = (unusedBits: number, bytes: Buffer): Buffer => der(0x03, Buffer.from([unusedBits]), bytes)

const utcTime = (millis: number): Buffer =>
  der(0x17, Buffer.from(`${new Date(millis).toISOString().replace(/\D/g, "").slice(2, 14)}Z`))

const oid = (first: number, second: number, ...rest: ReadonlyArray<number>): Buffer => {
  const bytes = rest.flatMap((part) => {
    const digits = [part & 127]
    for (let more = part >> 7; more > 0; more >>= 7) digits.unshift((more & 127) | 128)
    return digits
  })
  return der(0x06, Buffer.from([first * 40 + second, ...bytes]))
}

const ecdsaWithSha256 = sequence(oid(1, 2, 840, 10_045, 4, 3, 2))
const serverAuth = oid(1, 3, 6, 1, 5, 5, 7, 3, 1)
const clientAuth = oid(1, 3, 6, 1, 5, 5, 7, 3, 2)

const extension = (id: number, value: Buffer, isCritical = false): Buffer =>
  sequence(oid(2, 5, 29, id), ...(isCritical ? [der(0x01, Buffer.from([0xff]))] : []), der(0x04, value))

const basicConstraints = (...isAuthority: ReadonlyArray<Buffer>) =>
  extension(19, sequence(...isAuthority), true)

const leaf = basicConstraints()
/** It only signs certificates. */
const authority = [
  basicConstraints(der(0x01, Buffer.from([0xff]))),
  extension(15, bitString(2, Buffer.from([0x04])), true)
]

const extendedKeyUsage = (purpose: Buffer): Buffer => extension(37, sequence(purpose))

const subjectAltName = (...names: ReadonlyArray<string>): Buffer =>
  extension(17, sequence(...names.map((name) => (isIP(name) === 0 ? dnsName(name) : ipAddress(name)))))

const dnsName = (name: string): Buffer => der(0x82, Buffer.from(name))

const ipAddress = (text: string): Buffer =>
  der(
    0x87,
    text === "::1" ? Buffer.from([...Array(15).fill(0), 1]) : Buffer.from(text.split(".").map(Number))
  )
