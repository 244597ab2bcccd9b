/** Certificates for tests, made by the openssl command: two authorities, and what each has signed. */
import { execFileSync } from "node:child_process"
import * as Path from "node:path"

export interface Certificate {
  readonly cert: string
  readonly key: string
}

export interface Certificates {
  readonly ca: Certificate
  /** For 127.0.0.1, ::1 and localhost; a server's alone. */
  readonly server: Certificate
  readonly client: Certificate
  /** For localhost, of a server and a client. */
  readonly both: Certificate
  /** A client's, signed by another authority. */
  readonly foreign: Certificate
}

export const makeCertificates = (folder: string): Certificates => {
  const ca = make(folder, "ca", ["basicConstraints=critical,CA:true", "keyUsage=critical,keyCertSign"])
  const foreignCa = make(folder, "foreign-ca", ["basicConstraints=critical,CA:true"])
  const local = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
  return {
    ca,
    server: make(folder, "server", [local, "extendedKeyUsage=serverAuth"], ca),
    client: make(folder, "client", ["extendedKeyUsage=clientAuth"], ca),
    both: make(folder, "both", ["subjectAltName=DNS:localhost"], ca),
    foreign: make(folder, "foreign", ["extendedKeyUsage=clientAuth"], foreignCa)
  }
}

export const openssl = (...args: ReadonlyArray<string>): string =>
  execFileSync("openssl", args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })

const make = (
  folder: string,
  name: string,
  extensions: ReadonlyArray<string>,
  signer?: Certificate
): Certificate => {
  const made = { cert: Path.join(folder, `${name}.pem`), key: Path.join(folder, `${name}.key`) }
  const signed = signer === undefined ? [] : ["-CA", signer.cert, "-CAkey", signer.key]
  const isCa = extensions.some((extension) => extension.includes("CA:true"))
  const config = isCa ? [] : ["-addext", "basicConstraints=critical,CA:false"]
  openssl(
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
    ...["-config", "/dev/null", "-subj", `/CN=${name}`, "-days", "2", "-keyout", made.key, "-out", made.cert],
    ...signed,
    ...config,
    ...extensions.flatMap((extension) => ["-addext", extension])
  )
  return made
}
