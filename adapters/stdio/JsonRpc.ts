/**
 * JSON-RPC 2.0 (https://www.jsonrpc.org/specification), independent of streams and methods: parsing messages, the
 * texts of refusals, answering batches.
 *
 * Not npm's json-rpc-2.0: it parses with JSON.parse, which loses what Go sees (repeated keys, the text of numbers);
 * it runs a batch concurrently, answers a batch of one without its array, and accepts a method that is not a string.
 */
import { Effect, Result } from "effect"
import { JsonNumber, JsonObject, type JsonValue, parse, stringify } from "../../src/protocol/GoJson.ts"

type Id = string | number | null | JsonNumber

export interface RpcError {
  readonly code: number
  readonly message: string
  readonly data?: unknown
}

/** A valid request. Without an `id` it is a notification: executed, never answered. */
export interface Call {
  readonly _tag: "Call"
  readonly method: string
  readonly params: JsonObject | ReadonlyArray<JsonValue> | undefined
  readonly id: Id | undefined
}

/** An invalid request, and its answer. */
interface Refused {
  readonly _tag: "Refused"
  readonly id: Id
  readonly error: RpcError
}

type Message = Call | Refused | ReadonlyArray<Call | Refused>

export const code = {
  parseError: -32700,
  invalidRequest: -32600,
  methodNotFound: -32601,
  invalidParams: -32602,
  internalError: -32603,
  /** The driver's own errors; from the range that the specification reserves for servers. */
  driverError: -32000
} as const

/** Runs one request. The caller turns a defect into an error. */
export type Invoke<R> = (call: Call) => Effect.Effect<unknown, RpcError, R>

/** The most requests of one batch. */
const maxBatch = 1000

/** The most characters of the answers to one batch: requests beyond that are refused without being run. */
const maxBatchAnswer = 16 * 1024 * 1024

/** The answer to a message, without a line end; `undefined` if it needs none. A batch runs in order. */
export const answer = <R>(text: string, invoke: Invoke<R>): Effect.Effect<string | undefined, never, R> => {
  const message = readMessage(text)
  return "_tag" in message ? answerOne(message, invoke) : answerBatch(message, invoke)
}

export const readMessage = (text: string): Message => {
  const tree = parse(text)
  if (Result.isFailure(tree)) return refused(null, parseError(tree.failure))
  if (!Array.isArray(tree.success)) return readRequest(tree.success)
  const { length } = tree.success
  return length === 0 || length > maxBatch
    ? refused(null, invalidRequest(`a batch must hold 1 to ${maxBatch} requests (it holds ${length})`))
    : tree.success.map(readRequest)
}

const resultText = (id: Id, result: unknown): string =>
  `{"jsonrpc":"2.0","result":${JSON.stringify(result) ?? "null"},"id":${stringify(id)}}`

export const errorText = (id: Id, error: RpcError): string =>
  `{"jsonrpc":"2.0","error":${JSON.stringify(error)},"id":${stringify(id)}}`

/** `params` as JSON text; without an id, a notification. */
export const requestText = (method: string, params: string | undefined, id: Id | undefined): string =>
  `{"jsonrpc":"2.0","method":${JSON.stringify(method)}${params === undefined ? "" : `,"params":${params}`}${
    id === undefined ? "" : `,"id":${stringify(id)}`
  }}`

/** The specification's message; `data.detail` says what exactly is wrong. */
const errorWith =
  (code: number, message: string) =>
  (detail: string): RpcError => ({ code, message, data: { detail } })

const parseError = errorWith(code.parseError, "Parse error")
export const invalidRequest = errorWith(code.invalidRequest, "Invalid Request")
export const methodNotFound = errorWith(code.methodNotFound, "Method not found")

const answerOne = <R>(
  message: Call | Refused,
  invoke: Invoke<R>
): Effect.Effect<string | undefined, never, R> => {
  const { id } = message
  if (message._tag === "Refused") return Effect.succeed(errorText(message.id, message.error))
  return Effect.match(invoke(message), {
    onSuccess: (result) => (id === undefined ? undefined : resultText(id, result)),
    onFailure: (error) => (id === undefined ? undefined : errorText(id, error))
  })
}

const answerBatch = Effect.fnUntraced(function* <R>(
  messages: ReadonlyArray<Call | Refused>,
  invoke: Invoke<R>
): Effect.fn.Return<string | undefined, never, R> {
  const answers: Array<string> = []
  let length = 0
  for (const message of messages) {
    const text = yield* answerOne(message, length > maxBatchAnswer ? notRun : invoke)
    if (text === undefined) continue
    answers.push(text)
    length += text.length
  }
  return answers.length === 0 ? undefined : `[${answers.join(",")}]`
})

const notRun: Invoke<never> = () =>
  Effect.fail(
    invalidRequest(
      `the answers to a batch must be at most ${maxBatchAnswer} characters; this one was not run`
    )
  )

const refused = (id: Id, error: RpcError): Refused => ({ _tag: "Refused", id, error })

/** The answer carries a readable id even if the rest is invalid. Of repeated members the last counts. */
const readRequest = (value: JsonValue): Call | Refused => {
  if (!(value instanceof JsonObject)) return refused(null, invalidRequest("a request must be an object"))
  let version: JsonValue | undefined
  let method: JsonValue | undefined
  let params: JsonValue | undefined
  let id: JsonValue | undefined
  for (const [key, item] of value.entries) {
    if (key === "jsonrpc") version = item
    else if (key === "method") method = item
    else if (key === "params") params = item
    else if (key === "id") id = item
  }
  if (id !== undefined && !isId(id))
    return refused(null, invalidRequest("id must be a string, a number or null"))
  const refuse = (detail: string) => refused(id ?? null, invalidRequest(detail))
  if (version !== "2.0") return refuse('jsonrpc must be "2.0"')
  if (typeof method !== "string") return refuse("method must be a string")
  if (params !== undefined && !isStructured(params)) return refuse("params must be an object or an array")
  return { _tag: "Call", method, params, id }
}

const isId = (value: JsonValue): value is Id =>
  value === null || typeof value === "string" || typeof value === "number" || value instanceof JsonNumber

const isStructured = (value: JsonValue): value is JsonObject | ReadonlyArray<JsonValue> =>
  value instanceof JsonObject || Array.isArray(value)
