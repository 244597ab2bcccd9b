/** Where etcd is, and as whom to ask it. */
import { Result } from "effect"
import { parsePluginUrl } from "../docker/PluginAddress.ts"
import type { HttpAddress, TlsFiles } from "../node/HttpClient.ts"

export interface EtcdOptions {
  /** In any order; which one is asked first is random, so that hosts spread over them. */
  readonly endpoints: ReadonlyArray<EtcdEndpoint>
  /** For `https://`. etcd's gateway passes no client's certificate on: rights are the user's. */
  readonly tls?: TlsFiles | undefined
  readonly user?: string | undefined
  /** Holds the user's password, with or without a line end. Read at each login. */
  readonly passwordFile?: string | undefined
  /** How long one attempt may take. Default 1,000. */
  readonly timeoutMillis?: number | undefined
}

/** `text` is the URL for messages. */
export type EtcdEndpoint = Extract<HttpAddress, { readonly _tag: "Net" }> & { readonly text: string }

const etcdPort = 2379

const form = "expected http://HOST[:PORT] or https://HOST[:PORT]"

/** URLs with commas between them. The failure quotes the invalid one, and says the rule. */
export const parseEndpoints = (text: string): Result.Result<ReadonlyArray<EtcdEndpoint>, string> => {
  const endpoints: Array<EtcdEndpoint> = []
  for (const url of text.split(",")) {
    const endpoint = parseEndpoint(url.trim())
    if (Result.isFailure(endpoint)) return Result.fail(`"${url.trim()}": ${endpoint.failure}`)
    if (endpoints.some((other) => other.text === endpoint.success.text))
      return Result.fail(`"${url.trim()}": it is there twice`)
    endpoints.push(endpoint.success)
  }
  const [first] = endpoints
  return endpoints.every(({ tls }) => tls === first?.tls)
    ? Result.succeed(endpoints)
    : Result.fail(`"${text}": either all are https:// or none is`)
}

const parseEndpoint = (url: string): Result.Result<EtcdEndpoint, string> => {
  if (!/^https?:\/\//.test(url)) return Result.fail(form)
  const withPort = /:\d+\/?$/.test(url) ? url : `${url.replace(/\/$/, "")}:${etcdPort}`
  const parsed = parsePluginUrl(withPort, false)
  if (Result.isFailure(parsed))
    return Result.fail(parsed.failure.startsWith("expected") ? form : parsed.failure)
  return parsed.success._tag === "Net" ? Result.succeed(parsed.success) : Result.fail(form)
}
