/**
 * The running plugin, asked over its Unix socket in as much HTTP/1.1 as that takes. Not by `node:http`, and with `node:net`
 * got where it is used: each would make a process that lives for a few milliseconds twice as slow to start.
 */
import type { Socket } from "node:net"
import { type Caller, type Method, type RefusalKind, refusal } from "./Caller.ts"
import { CniError, codes } from "./CniError.ts"

/** A plugin of ours bounds each call to 10 s itself. */
const answerTimeoutMillis = 15_000

/** `undefined` where nobody serves the socket; throws where it can't be used. One call at a time. */
export const connect = (path: string): Promise<Caller | undefined> =>
  new Promise((resolve, reject) => {
    const socket = process.getBuiltinModule("node:net").connect(path)
    socket.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ECONNREFUSED" || error.code === "ENOTDIR")
        resolve(undefined)
      // A backlog that is full.
      else if (error.code === "EAGAIN") reject(new CniError(codes.tryAgain, `${path}: too many callers`))
      else reject(new CniError(codes.io, `the port mapper's socket can't be used: ${error.message}`))
    })
    socket.once("connect", () => {
      socket.removeAllListeners("error")
      resolve(callerOn(socket, path))
    })
  })

const callerOn = (socket: Socket, path: string): Caller => {
  let received: Array<Buffer> = []
  let length = 0
  /** How long the answer is, once its head has said so: it is put together when it is all there, not with each piece. */
  let needed = 0
  let waiting: { readonly told: (answer: Answer) => void; readonly lost: (why: string) => void } | undefined

  const settle = (ended: boolean) => {
    if (waiting === undefined || (length < needed && !ended)) return
    const bytes = Buffer.concat(received)
    const answer = answerIn(bytes, ended)
    received = answer === undefined ? [bytes] : []
    length = answer === undefined ? bytes.length : 0
    needed = answer === undefined ? (lengthOf(bytes) ?? 0) : 0
    if (answer !== undefined) waiting.told(answer)
    else if (ended) waiting.lost("the connection was closed before an answer")
  }
  socket.on("data", (chunk: Buffer) => {
    received.push(chunk)
    length += chunk.length
    settle(false)
  })
  socket.on("error", (error) => waiting?.lost(error.message))
  socket.on("close", () => settle(true))
  socket.setTimeout(answerTimeoutMillis, () => {
    waiting?.lost(`no answer within ${answerTimeoutMillis / 1000} s`)
    socket.destroy()
  })

  const ask = (method: Method, request: object, owner: string) =>
    new Promise<Answer>((resolve, reject) => {
      const lost = (why: string) =>
        reject(new CniError(codes.tryAgain, `PortMapper.${method} over ${path} failed: ${why}`))
      if (socket.destroyed) return lost("the connection is closed")
      waiting = { told: resolve, lost }
      socket.write(requestText(method, JSON.stringify(request), owner))
    }).finally(() => {
      waiting = undefined
    })

  return {
    call: async (method, request, owner) => valueOf(await ask(method, request, owner), method, path),
    // Not destroyed: that would first make a stream of stderr, for milliseconds, in a process that is about to exit.
    close: async () => void socket.end()
  }
}

interface Answer {
  readonly status: number
  readonly body: string
}

const requestText = (method: Method, body: string, owner: string): string =>
  [
    `POST /PortMapper.${method} HTTP/1.1`,
    "Host: plugin.moby.localhost",
    "Accept: application/vnd.docker.plugins.v1.2+json",
    `Portmapper-Owner: ${owner}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    "",
    body
  ].join("\r\n")

const headEnd = "\r\n\r\n"

/** How many bytes an answer has, its head included; `undefined` where that is not said, or not yet. */
const lengthOf = (bytes: Buffer): number | undefined => {
  const end = bytes.indexOf(headEnd)
  if (end === -1) return undefined
  const length = /^content-length:\s*(\d+)\s*$/im.exec(bytes.toString("latin1", 0, end))?.[1]
  return length === undefined ? undefined : end + headEnd.length + Number(length)
}

/** The answer, once it is whole. */
const answerIn = (bytes: Buffer, ended: boolean): Answer | undefined => {
  const end = bytes.indexOf(headEnd)
  if (end === -1) return undefined
  const head = bytes.toString("latin1", 0, end)
  const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? 0)
  const rest = bytes.subarray(end + headEnd.length)
  if (/^transfer-encoding:\s*chunked\s*$/im.test(head)) {
    const body = unchunked(rest)
    return body === undefined ? undefined : { status, body }
  }
  const length = lengthOf(bytes)
  if (length === undefined ? !ended : bytes.length < length) return undefined
  return { status, body: rest.toString() }
}

/** RFC 9112, section 7.1; `undefined` as long as the last chunk is missing. */
const unchunked = (bytes: Buffer): string | undefined => {
  const chunks: Array<Buffer> = []
  let at = 0
  while (true) {
    const line = bytes.indexOf("\r\n", at)
    if (line === -1) return undefined
    const size = Number.parseInt(bytes.toString("latin1", at, line), 16)
    if (!(size > 0)) return Buffer.concat(chunks).toString()
    if (bytes.length < line + 2 + size + 2) return undefined
    chunks.push(bytes.subarray(line + 2, line + 2 + size))
    at = line + 2 + size + 2
  }
}

const valueOf = ({ status, body }: Answer, method: Method, path: string): unknown => {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    if (status === 200 && method === "UnmapPorts") return {}
    throw refusal(
      "defect",
      `${path} answered ${method} with HTTP status ${status} and no JSON: ${body.slice(0, 200)}`
    )
  }
  const said = (value as { readonly Err?: unknown } | null)?.Err
  if (status === 200 && (said === undefined || said === "")) return value
  const message = typeof said === "string" ? said : `HTTP status ${status}`
  const kind = kinds[status] ?? (message.startsWith("internal error: ") ? "defect" : "driver")
  throw refusal(kind, message)
}

const kinds: Readonly<Record<number, RefusalKind>> = {
  400: "request",
  404: "notFound",
  413: "request",
  503: "stopping"
}
