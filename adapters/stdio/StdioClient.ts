/**
 * The client side of JSON-RPC 2.0, one message a line, on any pair of streams: those of a spawned `portmapper rpc`,
 * of a socket, of a test. Many calls may be in flight; answers are matched by id, in any order.
 */
import type { Readable, Writable } from "node:stream"
import { Effect, Fiber, Result, Schema, type Scope } from "effect"
import { stringify } from "../../src/protocol/GoJson.ts"
import { decodeValue } from "../../src/protocol/GoSchema.ts"
import {
  ActivateResponse,
  type Encoded,
  type Given,
  ListPortsResponse,
  type MapPortsRequest,
  MapPortsResponse,
  type UnmapPortsRequest,
  UnmapPortsResponse
} from "../../src/protocol/Messages.ts"
import { Issue, RequestError } from "../../src/protocol/RequestError.ts"
import { jsonOf } from "../node/jsonOf.ts"
import { code, type RpcError, requestText } from "./JsonRpc.ts"
import { type Line, LineReader, maxLineBytes, type StreamFailed, tooLong } from "./LineReader.ts"
import { LineWriter } from "./LineWriter.ts"

/** The remote port mapper failed: `code` is its error's tag, `message` its message. */
export class DriverFailed extends Schema.TaggedError<DriverFailed>()("DriverFailed", {
  code: Schema.String,
  message: Schema.String
}) {}

/** Any other error: an unknown method, a fault of the server, an invalid answer. `code` is JSON-RPC's. */
export class RpcFailed extends Schema.TaggedError<RpcFailed>()("RpcFailed", {
  code: Schema.Int,
  message: Schema.String,
  data: Schema.Unknown
}) {}

/** The streams ended before the answer came. Whether the call ran is unknown; the session's end undoes it. */
export class Disconnected extends Schema.TaggedError<Disconnected>()("Disconnected", {
  detail: Schema.String
}) {
  override get message(): string {
    return `the session is over: ${this.detail}`
  }
}

/** `RequestError`: the request is invalid; it says why. */
export type ClientError = RequestError | DriverFailed | RpcFailed | Disconnected

/** Requests and answers in their wire form; a field missing from a request is its zero value. */
export interface StdioClient {
  readonly activate: Effect.Effect<Encoded<typeof ActivateResponse>, ClientError>
  readonly mapPorts: (
    request: RequestOf<typeof MapPortsRequest>
  ) => Effect.Effect<Encoded<typeof MapPortsResponse>, ClientError>
  readonly unmapPorts: (
    request: RequestOf<typeof UnmapPortsRequest>
  ) => Effect.Effect<Encoded<typeof UnmapPortsResponse>, ClientError>
  readonly listPorts: Effect.Effect<Encoded<typeof ListPortsResponse>, ClientError>
  /** Calls any method with any params (an object or an array); returns its result unchanged. */
  readonly call: (method: string, params?: object) => Effect.Effect<unknown, ClientError>
  /** Sends a notification, which gets no answer. */
  readonly notify: (method: string, params?: object) => Effect.Effect<void, Disconnected>
}

export type RequestOf<S extends Schema.Constraint> = Given<S> & { readonly Owner?: string }

export interface ClientStreams {
  /** What the server writes. */
  readonly input: Readable
  /** What the server reads. Not ended with the client: ending it ends the session. */
  readonly output: Writable
}

/** A client that lives as long as the scope. Calls still in flight at its end fail as disconnected. */
export const make = ({ input, output }: ClientStreams): Effect.Effect<StdioClient, never, Scope.Scope> =>
  Effect.gen(function* () {
    const pending = new Map<number, (answer: Result.Result<unknown, ClientError>) => void>()
    let over: Disconnected | undefined
    let lastId = 0

    const disconnect = (detail: string): void => {
      if (over !== undefined) return
      over = new Disconnected({ detail })
      const waiting = [...pending.values()]
      pending.clear()
      for (const resolve of waiting) resolve(Result.fail(over))
    }

    const receive = (line: Line): void => {
      for (const { id, answer } of line === tooLong ? [] : readAnswers(line)) {
        const resolve = pending.get(id)
        pending.delete(id)
        resolve?.(answer)
      }
    }

    const lines = new LineReader(input, maxAnswerBytes)
    const requests = new LineWriter<never>(output, { written: () => {}, gone: disconnect })
    const reading = yield* Effect.gen(function* () {
      for (;;) {
        const next = yield* lines.next
        for (const line of next ?? [lines.rest() ?? ""]) receive(line)
        if (next === undefined) return disconnect("the server's output ended")
      }
    }).pipe(
      Effect.catch((error: StreamFailed) => Effect.sync(() => disconnect(error.message))),
      Effect.forkDetach({ startImmediately: true })
    )
    yield* Effect.addFinalizer(() =>
      Effect.andThen(
        Fiber.interrupt(reading),
        Effect.sync(() => {
          disconnect("the client was closed")
          lines.close()
          requests.close()
        })
      )
    )

    const call = (method: string, params?: object): Effect.Effect<unknown, ClientError> =>
      Effect.callback((resume) => {
        if (over !== undefined) return resume(Effect.fail(over))
        const id = ++lastId
        const text = requestText(method, params && stringify(params), id)
        if (Buffer.byteLength(text) > maxLineBytes) return resume(Effect.fail(requestTooLong))
        pending.set(id, (answer) => resume(Effect.fromResult(answer)))
        requests.write(text, [])
        return Effect.sync(() => void pending.delete(id))
      })

    const typed =
      <A>(method: string, read: (result: unknown) => Result.Result<A, ClientError>) =>
      (params?: object): Effect.Effect<A, ClientError> =>
        Effect.flatMap(call(method, params), (result) => Effect.fromResult(read(result)))

    return {
      activate: typed("Plugin.Activate", reader(ActivateResponse))(),
      mapPorts: typed("PortMapper.MapPorts", reader(MapPortsResponse)),
      unmapPorts: typed("PortMapper.UnmapPorts", reader(UnmapPortsResponse)),
      listPorts: typed("PortMapper.ListPorts", reader(ListPortsResponse))(),
      call,
      notify: (method, params) =>
        Effect.suspend(() => {
          if (over !== undefined) return Effect.fail(over)
          requests.write(requestText(method, params && stringify(params), undefined), [])
          return Effect.void
        })
    }
  })

/** The server would skip the line, and its error would carry no id. */
const requestTooLong = new RpcFailed({
  code: code.invalidRequest,
  message: `the message is over the limit of ${maxLineBytes} bytes`,
  data: undefined
})

/** Far more than a list of every port needs. */
const maxAnswerBytes = 256 * 1024 * 1024

interface ReadAnswer {
  readonly id: number
  readonly answer: Result.Result<unknown, ClientError>
}

/** The answers in a line that have a caller; anything else is ignored. */
const readAnswers = (line: string): ReadonlyArray<ReadAnswer> => {
  const message = jsonOf(line)
  return (Array.isArray(message) ? message : [message]).flatMap(
    (answer: unknown): ReadonlyArray<ReadAnswer> => {
      if (!isObject(answer) || typeof answer.id !== "number") return []
      const error = answer.error
      return [
        {
          id: answer.id,
          answer: isRpcError(error) ? Result.fail(errorOf(error)) : Result.succeed(answer.result)
        }
      ]
    }
  )
}

const errorOf = ({ code: number, message, data }: RpcError): ClientError => {
  const details = isObject(data) ? data : {}
  if (number === code.invalidParams && areIssues(details.issues)) {
    return new RequestError({ issues: details.issues })
  }
  if (number === code.driverError && typeof details.code === "string") {
    return new DriverFailed({ code: details.code, message })
  }
  return new RpcFailed({ code: number, message, data })
}

const areIssues = Schema.is(Schema.Array(Issue))

const isRpcError = (value: unknown): value is RpcError =>
  isObject(value) && Number.isInteger(value.code) && typeof value.message === "string"

/** Any object, with the members that we read. */
interface Members {
  readonly id?: unknown
  readonly result?: unknown
  readonly error?: unknown
  readonly code?: unknown
  readonly message?: unknown
  readonly data?: unknown
  readonly issues?: unknown
}

const isObject = (value: unknown): value is Members =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Returns the message unchanged once the schema accepts it. */
const reader = <S extends Schema.ConstraintDecoder<unknown>>(schema: S) => {
  const check = decodeValue(schema)
  return (result: unknown): Result.Result<Encoded<S>, RpcFailed> => {
    const checked = isObject(result) ? check(result) : undefined
    if (checked !== undefined && Result.isSuccess(checked)) return Result.succeed(result as Encoded<S>)
    const why = checked === undefined ? "it is no object" : checked.failure.message
    return Result.fail(
      new RpcFailed({
        code: code.internalError,
        message: `the server's answer is none: ${why}`,
        data: result
      })
    )
  }
}
