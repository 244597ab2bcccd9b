/**
 * Requests to etcd's JSON gateway: one attempt each, at the endpoint whose turn it is; the next one's turn comes when one
 * can't be reached. On our own HTTP client, like everything here that speaks HTTP: Effect's is undici or `fetch`, of which
 * the one is a dependency and 0.1 s of start, and the other takes no CA.
 */
import type { IncomingMessage } from "node:http"
import { Effect, Random, Result, type Scope } from "effect"
import type { ClusterError, EtcdCounts } from "../../src/cluster/Etcd.ts"
import {
  type HttpAnswer,
  type HttpClient,
  keepAliveClient,
  readTls,
  type TlsFileError
} from "../node/HttpClient.ts"
import { jsonOf } from "../node/jsonOf.ts"
import { type Asked, type EtcdAnswer, errorAt, refusal, withoutAnswer } from "./EtcdFailures.ts"
import { makeLogin } from "./EtcdLogin.ts"
import { type Decoder, type EtcdRequest, transactPath } from "./EtcdMessages.ts"
import type { EtcdOptions } from "./EtcdOptions.ts"

/** One endpoint. `onLost`: what its watches do when it does not answer another request. */
export interface Peer {
  readonly endpoint: string
  readonly http: HttpClient
  readonly onLost: Set<(error: ClusterError) => void>
}

/** An answer that does not end. */
export interface OpenAnswer {
  readonly response: IncomingMessage
  readonly peer: Peer
}

export interface EtcdGateway {
  readonly ask: <A>(request: EtcdRequest<A>) => Effect.Effect<A, ClusterError | EtcdAnswer>
  readonly open: (
    path: string,
    body: object
  ) => Effect.Effect<OpenAnswer, ClusterError | EtcdAnswer, Scope.Scope>
  /** Fails with the error, counted; another endpoint's turn comes if this one can't be reached. */
  readonly fail: (peer: Peer, error: ClusterError) => Effect.Effect<never, ClusterError>
  readonly counts: EtcdCounts
}

const defaultTimeoutMillis = 1000

/** How many times longer a long answer may take. */
const longFactor = 5

/** Kept open to each endpoint. */
const connections = 8

export const makeGateway = Effect.fnUntraced(function* (
  options: EtcdOptions
): Effect.fn.Return<EtcdGateway, TlsFileError, Scope.Scope> {
  const { timeoutMillis = defaultTimeoutMillis } = options
  const peers = yield* connectPeers(options)
  const counts = { requests: 0, writes: 0, failures: { Unreachable: 0, Denied: 0, Full: 0, Refused: 0 } }
  let turn = yield* Random.nextIntBetween(0, peers.length)
  const current = () => peers[turn % peers.length] as Peer

  const fail: EtcdGateway["fail"] = (peer, error) =>
    Effect.suspend(() => {
      counts.failures[error.reason]++
      if (error.reason === "Unreachable") {
        if (current() === peer) turn++
        for (const onLost of [...peer.onLost]) onLost(error)
      }
      return Effect.fail(error)
    })

  const post = <A>(peer: Peer, request: EtcdRequest<A>, token: string | undefined) => {
    const asked = { endpoint: peer.endpoint, writes: request.writes === true }
    const millis = request.isLong === true ? longFactor * timeoutMillis : timeoutMillis
    counts.requests++
    if (asked.writes && request.path === transactPath) counts.writes++
    return peer.http.ask(message(request.path, request.body, token)).pipe(
      Effect.catchTag("HttpError", (error) => Effect.fail(withoutAnswer(asked, error))),
      Effect.timeoutOrElse({
        duration: millis,
        orElse: () => Effect.fail(errorAt(asked, "Unreachable", `no answer within ${millis / 1000} s`))
      }),
      Effect.flatMap((answer) => Effect.fromResult(decoded(asked, answer, request.decode)))
    )
  }

  const open = Effect.fnUntraced(function* (
    peer: Peer,
    path: string,
    body: object,
    token: string | undefined
  ) {
    const asked = { endpoint: peer.endpoint, writes: false }
    const { headers, ...rest } = message(path, body, token)
    counts.requests++
    const response = yield* peer.http
      .open({ ...rest, headers: { ...headers, ...hasLeader }, alone: true })
      .pipe(Effect.catchTag("HttpError", (error) => Effect.fail(withoutAnswer(asked, error))))
    if (response.statusCode === 200) return { response, peer }
    const text = yield* Effect.promise(() => bodyOf(response))
    return yield* Effect.fail(refusal(asked, { status: response.statusCode ?? 0, body: text }))
  })

  const login = yield* makeLogin(options, (request) => post(current(), request, undefined))

  const counted = <A, R>(run: (peer: Peer) => Effect.Effect<A, ClusterError | EtcdAnswer, R>) =>
    Effect.suspend(() => {
      const peer = current()
      return Effect.catchTag(run(peer), "ClusterError", (error) => fail(peer, error))
    })

  return {
    ask: (request) => counted((peer) => login((token) => Effect.suspend(() => post(peer, request, token)))),
    open: (path, body) => counted((peer) => login((token) => open(peer, path, body, token))),
    fail,
    counts
  }
})

export const connectPeers = Effect.fnUntraced(function* ({
  endpoints,
  tls,
  timeoutMillis = defaultTimeoutMillis
}: EtcdOptions): Effect.fn.Return<ReadonlyArray<Peer>, TlsFileError, Scope.Scope> {
  const files = yield* readTls(tls ?? {})
  const timeouts = { connectTimeoutMillis: timeoutMillis, answerTimeoutMillis: longFactor * timeoutMillis }
  return yield* Effect.forEach(endpoints, (endpoint) =>
    Effect.map(
      keepAliveClient(endpoint, connections, { ...timeouts, tls: files }),
      (http): Peer => ({ endpoint: endpoint.text, http, onLost: new Set() })
    )
  )
})

/** A member that has lost its leader then ends the answer, instead of being silent. */
const hasLeader = { "Grpc-Metadata-hasleader": "true" }

const message = (path: string, body: object, token: string | undefined) => ({
  method: "POST",
  path,
  headers: token === undefined ? {} : { Authorization: token },
  body: JSON.stringify(body)
})

export const decoded = <A>(
  asked: Asked,
  answer: HttpAnswer,
  decode: Decoder<A>
): Result.Result<A, ClusterError | EtcdAnswer> =>
  answer.status === 200
    ? Result.mapError(decode(jsonOf(answer.body)), (why) =>
        errorAt(asked, "Refused", `an answer that is none of etcd v3's: ${why}`)
      )
    : Result.fail(refusal(asked, answer))

const bodyOf = async (response: IncomingMessage): Promise<string> => {
  let body = ""
  try {
    for await (const text of response.setEncoding("utf8")) body += text
  } catch {
    // What came says more than that the rest did not.
  }
  return body
}
