/**
 * The fast path of requests: nearly every one arrives in one chunk, is a `POST` with known headers, and is answered
 * in one write. Such a request is read and answered here, on the bare socket, at half the cost of `node:http`. At the
 * first byte of anything else (a partial request, another header, two requests in one chunk, no HTTP at all) the
 * connection moves to `node:http`, from that byte on and for good.
 */
import { type Server, STATUS_CODES } from "node:http"
import type * as Net from "node:net"
import { Effect } from "effect"
import { type Responder, Undelivered } from "./Responder.ts"
import { contentType, errorText, type Head, maxBodyBytes, ownerHeader } from "./Routes.ts"

export interface WholeRequest {
  readonly head: Head
  readonly body: string
}

export interface Interception {
  /** Answers a request; `false`, with nothing done yet, leaves it to `node:http`. */
  readonly take: (request: WholeRequest, responder: Responder, done: () => void) => boolean
  /** How long a connection may stay silent. */
  readonly silenceMillis: number
  /** How long a client may read nothing of its answer. */
  readonly unreadMillis: number
  /** Milliseconds since the Unix epoch. */
  readonly now: () => number
}

/** The most chunks, of 64 KiB at most, that are buffered during a call before the client has to wait. */
const maxWaiting = 16

/** The connections on the fast path. */
export interface ShortWay {
  /** Calls `end` for connections without a request in flight, and for the others once theirs is answered. */
  readonly endIdle: (end: (socket: Net.Socket) => void) => void
  readonly closeAll: () => void
}

export const interceptWholeRequests = (server: Server, interception: Interception): ShortWay => {
  const { take, silenceMillis } = interception
  const onward = server.listeners("connection")
  allowHalfOpen(server)
  const connections = new Map<Net.Socket, ConnectionState>()
  let endNext: ((socket: Net.Socket) => void) | undefined

  const accept = (socket: Net.Socket) => {
    const state = new ConnectionState()
    const responder = responderOn(socket, state, interception)
    const waiting: Array<Buffer> = []
    connections.set(socket, state)

    const handOver = (bytes: Buffer) => {
      socket.off("data", onData).off("end", onEnd).off("close", onClose).off("error", ignore).setTimeout(0)
      socket.off("timeout", destroy)
      connections.delete(socket)
      socket.once("end", () => endHalf(socket))
      for (const listener of onward) listener.call(server, socket)
      socket.unshift(bytes)
    }
    const done = () => {
      state.isCalling = false
      state.gone = undefined
      if (socket.destroyed) return
      // A client may have read its answer and sent its next request before the call ended.
      if (socket.isPaused()) socket.resume()
      if (waiting.length > 0) onData(Buffer.concat(waiting.splice(0)))
      else if (state.hasEnded) socket.end()
      else endNext?.(socket)
    }
    const onData = (chunk: Buffer) => {
      if (state.isCalling) {
        waiting.push(chunk)
        if (waiting.length === maxWaiting) socket.pause()
        return
      }
      socket.setTimeout(0)
      const request = parseWhole(chunk)
      state.isCalling = true
      state.isOpen = true
      if (request !== undefined && take(request, responder, done)) return
      state.isCalling = false
      state.isOpen = false
      handOver(chunk)
    }
    const onEnd = () => {
      state.hasEnded = true
      if (state.isCalling) endHalf(socket)
      else socket.end()
    }
    const onClose = () => {
      connections.delete(socket)
      state.gone?.()
    }
    const destroy = () => socket.destroy()
    socket.on("data", onData).on("end", onEnd).on("close", onClose).on("error", ignore)
    socket.setTimeout(silenceMillis).once("timeout", destroy)
  }

  server.removeAllListeners("connection").on("connection", accept)
  return {
    endIdle: (end) => {
      endNext = end
      for (const [socket, { isCalling }] of connections) if (!isCalling) end(socket)
    },
    closeAll: () => {
      for (const socket of connections.keys()) socket.destroy()
    }
  }
}

/**
 * The client sends no more, and may still wait for its answer. On a Unix socket an empty write fails if the client
 * has closed the connection altogether. Over TCP that shows only later, so there the client counts as gone.
 */
const endHalf = (socket: Net.Socket): void => {
  const isTcp = socket.remoteAddress !== undefined
  if (isTcp) socket.end()
  else socket.write("")
}

/** Otherwise `node:http` ends the connection when the client sends no more; its types lack the property. */
const allowHalfOpen = (server: Server & { httpAllowHalfOpen?: boolean }): void => {
  server.httpAllowHalfOpen = true
}

class ConnectionState {
  /** From the request until its call ends, which is after the answer. */
  isCalling = false
  /** Whether an answer is still to be sent. */
  isOpen = false
  /** Whether the client sends no more. */
  hasEnded = false
  /** Called when the client disconnects during a call. */
  gone: (() => void) | undefined
}

const responderOn = (
  socket: Net.Socket,
  state: ConnectionState,
  { now, unreadMillis }: Interception
): Responder => ({
  connection: socket,
  deliver: (text) =>
    Effect.callback((resume) => {
      if (socket.destroyed) return resume(Effect.fail(new Undelivered()))
      state.isOpen = false
      writeAnswer(socket, { status: 200, text, nowMillis: now() }, (error) => {
        socket.setTimeout(0)
        resume(error ? Effect.fail(new Undelivered()) : Effect.void)
      })
      // Nearly always the kernel has taken it by now: no need to wait for the callback.
      if (socket.writableLength > 0) socket.setTimeout(unreadMillis)
      else if (socket.errored === null && !socket.destroyed) resume(Effect.void)
    }),
  open: () => state.isOpen && !socket.destroyed,
  refuse: ({ status, reason }) => {
    const text = errorText(reason)
    state.isOpen = false
    writeAnswer(socket, { status, text, nowMillis: now() })
  },
  onGone: (listener) => {
    state.gone = listener
  }
})

/** The headers that don't change how a request is read or answered; any other takes `node:http`. */
const plainHeaders = new Set([
  "host",
  "user-agent",
  "accept",
  "connection",
  "content-length",
  "content-type",
  ownerHeader
])

const parseWhole = (chunk: Buffer): WholeRequest | undefined => {
  if (chunk[0] !== 0x50 /* P */) return undefined
  const end = chunk.indexOf("\r\n\r\n")
  if (end === -1 || end > maxHeadLength) return undefined
  const known = headOf(chunk.toString("latin1", 0, end))
  if (known === undefined || chunk.length !== end + 4 + known.length) return undefined
  return { head: known.head, body: chunk.toString("utf8", end + 4) }
}

interface KnownHead {
  readonly head: Head
  /** The body's length. */
  readonly length: number
}

/** A cache: clients send the same few heads again and again. */
const lately = new Map<string, KnownHead>()
const maxLately = 64
const maxHeadLength = 1024

const headOf = (text: string): KnownHead | undefined => {
  const known = lately.get(text)
  if (known !== undefined) return known
  const head = parseHead(text)
  if (head === undefined) return undefined
  if (lately.size === maxLately) lately.clear()
  lately.set(text, head)
  return head
}

/** The header values that need no further check. */
const plainText = /^[\t -~]*$/

const parseHead = (text: string): KnownHead | undefined => {
  const [requestLine = "", ...lines] = text.split("\r\n")
  const path = /^POST (\/[!-~]*) HTTP\/1\.1$/.exec(requestLine)?.[1]
  if (path === undefined) return undefined
  const headers = new Map<string, string>()
  for (const line of lines) {
    const colon = line.indexOf(":")
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1)
    if (colon === -1 || !plainHeaders.has(name) || headers.has(name) || !plainText.test(value))
      return undefined
    headers.set(name, value.trim())
  }
  // Many clients send the default, `keep-alive`; a connection that is to be closed takes `node:http`.
  if ((headers.get("connection") ?? "keep-alive").toLowerCase() !== "keep-alive") return undefined
  const length = headers.get("content-length") ?? "0"
  if (!/^\d{1,7}$/.test(length) || Number(length) > maxBodyBytes) return undefined
  const [owner, host] = [headers.get(ownerHeader), headers.get("host")]
  return { head: { verb: "POST", path, owner, origin: undefined, host }, length: Number(length) }
}

const writeAnswer = (
  socket: Net.Socket,
  { status, text, nowMillis }: { readonly status: number; readonly text: string; readonly nowMillis: number },
  written?: (error?: Error | null) => void
): void => {
  const length = Buffer.byteLength(text)
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: ${contentType}\r\nContent-Length: ${length}\r\nDate: ${httpDate(nowMillis)}\r\n\r\n`
  // If each character is one byte, the text is ASCII, which is cheaper to write as Latin-1 than as UTF-8.
  socket.write(head + text, length === text.length ? "latin1" : "utf8", written)
}

let dateSecond = 0
let dateText = ""

/** The time in HTTP's format, rebuilt once a second. */
const httpDate = (nowMillis: number): string => {
  const second = Math.floor(nowMillis / 1000)
  if (second !== dateSecond) {
    dateSecond = second
    dateText = new Date(second * 1000).toUTCString()
  }
  return dateText
}

const ignore = () => {}
