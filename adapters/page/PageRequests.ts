/** What a request for the page gets, by its head alone. Nothing that a request can ask for changes anything. */
import { preview } from "../../src/protocol/GoJson.ts"
import { type Refusal, refusal, refusedHost } from "../docker/Routes.ts"

export interface PageHead {
  readonly verb: string
  /** The target as sent. */
  readonly target: string
  readonly host: string | undefined
  readonly origin: string | undefined
  /** The header `Sec-Fetch-Site`. */
  readonly site: string | undefined
}

export interface Hosts {
  /** Whether a `Host` (without its port) names the listener itself. */
  readonly isOwn: (host: string) => boolean
  /** Further names, in lower case: those of a reverse proxy. */
  readonly named: ReadonlySet<string>
}

export type PageAnswer = Refusal | { readonly _tag: "File" | "State" | "Events" }

const answers: Readonly<Record<string, PageAnswer>> = {
  "/": { _tag: "File" },
  "/api/state": { _tag: "State" },
  "/api/events": { _tag: "Events" }
}

export const pageAnswerOf = (head: PageHead, hosts: Hosts): PageAnswer => {
  const refused = refusedHost(head.host ?? "", (host) => isKnown(host, hosts), hostRule)
  if (refused !== undefined) return refused
  const { verb, target } = head
  const path = target.split("?", 1)[0] ?? ""
  const answer = Object.hasOwn(answers, path) ? answers[path] : undefined
  if (answer === undefined)
    return refusal(404, `${preview(path)}: no such path; known are ${Object.keys(answers).join(", ")}`)
  if (verb !== "GET" && verb !== "HEAD")
    return refusal(405, `${verb} ${path}: the method must be GET or HEAD: the page changes nothing`)
  return refusedAsForeign(head, hosts, path) ?? answer
}

const hostRule =
  "localhost, a loopback address, the name or address that the page listens on, or one of --page-host"

const isKnown = (host: string, { isOwn, named }: Hosts): boolean =>
  named.has(host.toLowerCase()) || isOwn(host)

/** Other web pages may link to this one, and read nothing of it. */
const refusedAsForeign = (
  { host = "", origin, site }: PageHead,
  { named }: Hosts,
  path: string
): Refusal | undefined => {
  if (origin !== undefined) {
    const from = URL.canParse(origin) ? new URL(origin) : undefined
    if (from === undefined || (from.host !== host.toLowerCase() && !named.has(from.hostname)))
      return refusal(403, `Origin = ${preview(origin)}: must be that of the page itself`)
  }
  if (path !== "/" && (site === "cross-site" || site === "same-site"))
    return refusal(403, `Sec-Fetch-Site = ${site}: only the page itself may read this`)
  return undefined
}
