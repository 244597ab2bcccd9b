/** Plain clients for a TCP port, with and without TLS. */
import * as Fs from "node:fs"
import * as Https from "node:https"
import type * as Tls from "node:tls"
import type { Certificate } from "./certificates.ts"
import { type HttpAnswer, send } from "./http.ts"

export interface TcpRequest {
  readonly host?: string
  readonly port: number
  readonly path?: string
  readonly body?: string | Buffer
  readonly headers?: Record<string, string>
  /** With TLS if given. */
  readonly tls?: Tls.ConnectionOptions
}

export const requestTcp = ({
  host = "127.0.0.1",
  port,
  path = "/Plugin.Activate",
  body = "",
  headers = {},
  tls
}: TcpRequest): Promise<HttpAnswer> =>
  send({ host, port, path, method: "POST", headers, agent: false, ...tls }, body, tls && Https)

/** What a client needs to trust a server and, with a certificate, to be trusted. */
export const clientTls = (ca: Certificate, own?: Certificate): Tls.ConnectionOptions => ({
  ca: Fs.readFileSync(ca.cert),
  ...(own === undefined ? {} : { cert: Fs.readFileSync(own.cert), key: Fs.readFileSync(own.key) })
})
