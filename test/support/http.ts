/** A minimal HTTP client: it sends exactly what the test wrote. */
import * as Http from "node:http"
import type * as Https from "node:https"
import * as Net from "node:net"
import { patienceMillis } from "../lab/patience.ts"

export interface HttpAnswer {
  readonly status: number
  readonly contentType: string | undefined
  readonly body: string
}

/** Over a Unix socket. */
export const request = (
  socketPath: string,
  path: string,
  body = "",
  options: Http.RequestOptions = {}
): Promise<HttpAnswer> => send({ socketPath, path, method: "POST", ...options }, body)

/** Over whatever connection the options describe. */
export const send = (
  options: Https.RequestOptions,
  body: string | Buffer,
  protocol: Pick<typeof Https, "request"> = Http
): Promise<HttpAnswer> =>
  new Promise((resolve, reject) => {
    const sent = protocol.request(options, (response) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("error", reject)
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          contentType: response.headers["content-type"],
          body: Buffer.concat(chunks).toString()
        })
      )
    })
    sent.on("error", reject)
    sent.end(body)
  })

/** Sends raw bytes, and returns everything received until the other side closes or `millis` have passed. */
export const raw = (
  socketPath: string,
  bytes: string | ReadonlyArray<string>,
  millis = patienceMillis
): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = Net.connect(socketPath)
    const chunks: Array<Buffer> = []
    const timer = setTimeout(() => socket.destroy(), millis)
    socket.on("data", (chunk) => chunks.push(chunk))
    socket.on("error", reject)
    socket.on("close", () => {
      clearTimeout(timer)
      resolve(Buffer.concat(chunks).toString())
    })
    for (const part of typeof bytes === "string" ? [bytes] : bytes) socket.write(part)
  })
