/**
 * The plugin protocol's HTTP, on any transport: the paths, the status of each outcome, and the messages of refusals.
 * `PluginServer` serves it on sockets, `WebHandler` as a `fetch` handler.
 */
import { Cause, type Effect, type Scope } from "effect"
import { type Driver, isOwner, ownerRule } from "../../src/protocol/Driver.ts"
import { preview } from "../../src/protocol/GoJson.ts"
import { type Answer, type Failure, Method } from "../../src/protocol/Operations.ts"

export const contentType = "application/vnd.docker.plugins.v1.1+json"

/** The Engine's own limit on its requests is far lower. */
export const maxBodyBytes = 1024 * 1024

/** The answer to a `GET`, such as `GET /healthz`. */
export interface Page {
  readonly contentType: string
  readonly body: string
}

/** A `POST` that speaks another protocol than the plugin's. */
export interface Posted {
  /** By its lower-case name; one character for each byte. */
  readonly header: (name: string) => string | undefined
  readonly body: string
}

/** The answer to a `Posted`, sent unchanged. */
export interface Reply extends Page {
  readonly status: number
}

/** The scope is the delivery of the reply, as it is of a call's answer. */
export type Handler = (posted: Posted) => Effect.Effect<Reply, never, Driver | Scope.Scope>

export interface RouteOptions {
  /** Further `GET` paths. */
  readonly pages?: Readonly<Record<string, Effect.Effect<Page, unknown, Driver>>>
  /** Further `POST` paths. */
  readonly handlers?: Readonly<Record<string, Handler>>
  /** The owner of calls without the header `Portmapper-Owner`. */
  readonly owner?: string
  /** Whether a `Host` (without its port) names this plugin; every one does if `undefined`. */
  readonly isOwnHost?: ((host: string) => boolean) | undefined
}

/** The parts of a request that decide how it is handled. */
export interface Head {
  readonly verb: string
  /** The target as sent, query included: none of our paths has one. */
  readonly path: string
  /** The header `Portmapper-Owner`. */
  readonly owner: string | undefined
  readonly origin: string | undefined
  readonly host: string | undefined
}

type Route = Refusal | CallRoute | PageRoute | HandlerRoute

export interface Refusal {
  readonly _tag: "Refusal"
  readonly status: number
  readonly reason: string
}

export interface CallRoute {
  readonly _tag: "Call"
  readonly method: Method
  readonly owner: string
}

export interface PageRoute {
  readonly _tag: "Page"
  readonly page: Effect.Effect<Page, unknown, Driver>
}

export interface HandlerRoute {
  readonly _tag: "Handler"
  readonly handler: Handler
}

export const ownerHeader = "portmapper-owner"

export const routeOf = (head: Head, options: RouteOptions): Route => {
  const foreign = refusedAsForeign(head, options)
  if (foreign !== undefined) return foreign
  const { verb, path, owner: ownerNamed } = head
  const { pages = {}, handlers = {}, owner = "engine" } = options
  const method = methodsByPath.get(path)
  if (method !== undefined) {
    if (verb !== "POST") return mustBePost(verb, path)
    if (!ownerNamed) return { _tag: "Call", method, owner }
    return isOwner(ownerNamed)
      ? { _tag: "Call", method, owner: ownerNamed }
      : refusal(400, `the header Portmapper-Owner must be ${ownerRule}`)
  }
  const handler = Object.hasOwn(handlers, path) ? handlers[path] : undefined
  if (handler !== undefined) return verb === "POST" ? { _tag: "Handler", handler } : mustBePost(verb, path)
  const page = Object.hasOwn(pages, path) ? pages[path] : undefined
  if (page === undefined)
    return refusal(404, `${path}: no such path; known are ${[...methodsByPath.keys()].join(", ")}`)
  return verb === "GET" || verb === "HEAD"
    ? { _tag: "Page", page }
    : refusal(405, `${verb} ${path}: the method must be GET`)
}

/**
 * Any web page may make a browser send requests to a port of the browser's host. They carry `Origin`, which no plugin
 * client sends; if the page's own name resolves to this host (DNS rebinding), their `Host` is not ours.
 */
const refusedAsForeign = ({ origin, host = "" }: Head, { isOwnHost }: RouteOptions): Refusal | undefined => {
  if (origin !== undefined)
    return refusal(400, `Origin = ${preview(origin)}: must not be given: requests of web pages are refused`)
  return refusedHost(host, isOwnHost ?? (() => true), ownHostRule)
}

/** `rule` says which hosts are our own. */
export const refusedHost = (
  host: string,
  isOwnHost: (host: string) => boolean,
  rule: string
): Refusal | undefined => {
  if (host.includes(",")) return refusal(400, `Host = ${preview(host)}: must be given once`)
  if (host === "" || isOwnHost(host.replace(/:\d*$/, ""))) return undefined
  return refusal(421, `Host = ${preview(host)}: must be ${rule}`)
}

const ownHostRule =
  "localhost, a loopback address, the name or address that the plugin listens on, or plugin.moby.localhost"

export const stopping: Refusal = refusal(503, "the plugin is stopping; try again")

export const tooLarge: Refusal = refusal(413, `the body is over the limit of ${maxBodyBytes} bytes`)

export const refusedAs = ({ kind, message }: Failure): Refusal =>
  refusal({ request: 400, notFound: 404, driver: 500, defect: 500 }[kind], message)

export const pageFailed = (cause: Cause.Cause<unknown>): Refusal =>
  refusal(500, Cause.pretty(cause).split("\n")[0] ?? "")

export const answerText = (answer: Answer): string => `${JSON.stringify(answer)}\n`

export const errorText = (message: string): string => `${JSON.stringify({ Err: message })}\n`

/** Invalid UTF-8 becomes U+FFFD, as in Go; a byte order mark stays and is refused with the rest of the text. */
export const decodeBody = (chunks: ReadonlyArray<Uint8Array>): string => {
  if (chunks.length <= 1) return wholeBody.decode(chunks[0])
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  return chunks.map((chunk) => decoder.decode(chunk, { stream: true })).join("") + decoder.decode()
}

const wholeBody = new TextDecoder("utf-8", { ignoreBOM: true })

const methodsByPath = new Map(Method.literals.map((method) => [`/${method}`, method]))

const mustBePost = (verb: string, path: string): Refusal =>
  refusal(405, `${verb} ${path}: the method must be POST`)

export function refusal(status: number, reason: string): Refusal {
  return { _tag: "Refusal", status, reason }
}
