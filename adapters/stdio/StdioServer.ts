/**
 * Serves a driver over JSON-RPC 2.0, one message a line, on any pair of streams. Defines a session: its requests run
 * strictly in order, an answer is delivered when the kernel has taken its line, and what the session created is
 * released at its end.
 */
import type { Readable, Writable } from "node:stream"
import { type Cause, Deferred, Effect, Exit, Logger, References, Result, Scope } from "effect"
import { CurrentOwner, Driver, isOwner, ownerRule } from "../../src/protocol/Driver.ts"
import { JsonObject, type JsonValue, preview } from "../../src/protocol/GoJson.ts"
import { type CallError, call, failureOf, Method, valueBody } from "../../src/protocol/Operations.ts"
import { mostIssues, RequestError } from "../../src/protocol/RequestError.ts"
import * as JsonRpc from "./JsonRpc.ts"
import { type Line, LineReader, maxLineBytes, StreamFailed, tooLong } from "./LineReader.ts"
import { LineWriter } from "./LineWriter.ts"
import { makeSession } from "./Session.ts"

export interface SessionOptions {
  /** Bytes of requests. Nothing else may read from it. */
  readonly input: Readable
  /** Carries answers only; logs go to stderr. Not ended with the session. */
  readonly output: Writable
  /** The owner of requests without `params.Owner`. */
  readonly owner?: string
}

/**
 * Serves one session until its input ends. Fails when a stream fails; releases what the session created however it
 * ends, by interruption (SIGTERM) too. Ignores blank lines. A line over the limit is answered and skipped.
 */
export const serve = Effect.fnUntraced(
  function* ({
    input,
    output,
    owner = "session"
  }: SessionOptions): Effect.fn.Return<void, StreamFailed, Driver> {
    const session = makeSession(yield* Driver)
    const outputGone = yield* Deferred.make<never, StreamFailed>()
    const deliveries = yield* makeDeliveries
    const lines = new LineReader(input, maxLineBytes)
    const answers = new LineWriter<Scope.Closeable>(output, {
      written: deliveries.delivered,
      gone: (detail) =>
        Deferred.doneUnsafe(
          outputGone,
          Effect.fail(new StreamFailed({ operation: "writing answers", detail }))
        )
    })
    const room = Effect.callback<void>((resume) => {
      const cancel = answers.wait("room", () => resume(Effect.void))
      return Effect.sync(cancel)
    })
    const written = Effect.callback<void>((resume) => {
      const cancel = answers.wait("idle", () => resume(Effect.void))
      return Effect.sync(cancel)
    })

    const answerLine = (line: Line): Effect.Effect<void, never, Driver> => {
      if (line === tooLong) {
        answers.write(JsonRpc.errorText(null, lineTooLong), [])
        return Effect.void
      }
      if (isBlank(line)) return Effect.void
      const open: Array<Scope.Closeable> = []
      return Effect.map(
        JsonRpc.answer(line, (call) => invoke(call, deliveries, open)),
        (text) => {
          if (text !== undefined) answers.write(text, open)
          else if (open.length > 0) deliveries.delivered(open)
        }
      )
    }

    const run = Effect.gen(function* () {
      let sinceTurn = 0
      for (;;) {
        const next = yield* lines.next
        for (const line of next ?? [lines.rest() ?? ""]) {
          if (answers.isFull) yield* room
          if (++sinceTurn === linesAtOnce) {
            sinceTurn = 0
            yield* Effect.yieldNow
          }
          yield* answerLine(line)
        }
        if (next === undefined) break
      }
      yield* written
    })

    yield* Effect.raceFirst(run, Deferred.await(outputGone)).pipe(
      Effect.provideService(Driver, session.driver),
      Effect.provideService(CurrentOwner, owner),
      // A call doesn't yield to others until it waits for something; the session yields between calls.
      Effect.provideService(References.PreventSchedulerYield, true),
      Effect.onExit(() => {
        lines.close()
        answers.close()
        return Effect.andThen(deliveries.giveUp, session.release)
      })
    )
  },
  Effect.provideService(Logger.LogToStderr, true)
)

/** After this many lines the session yields to other fibers, and their answers are written. */
const linesAtOnce = 128

const lineTooLong = JsonRpc.invalidRequest(`the message is over the limit of ${maxLineBytes} bytes`)

const isBlank = (line: string): boolean => line.charCodeAt(0) !== 0x7b && line.trim() === ""

/** The calls whose answers are being delivered. Each one's scope closes with the outcome of the delivery. */
type Deliveries = Effect.Success<typeof makeDeliveries>

const makeDeliveries = Effect.map(Effect.context<never>(), (services) => {
  const open = new Set<Scope.Closeable>()
  const closing = new Set<Promise<void>>()
  const runPromise = Effect.runPromiseWith(services)
  return {
    begin: () => {
      const scope = Scope.makeUnsafe()
      open.add(scope)
      return scope
    },
    /** Nothing depends on its delivery. */
    forget: (scope: Scope.Closeable) => void open.delete(scope),
    delivered: (scopes: ReadonlyArray<Scope.Closeable>) => {
      for (const scope of scopes) open.delete(scope)
      const closed = runPromise(closeAll(scopes, Exit.void))
      closing.add(closed)
      const done = () => void closing.delete(closed)
      closed.then(done, done)
    },
    /** Fails all pending deliveries. Returns when every one is settled. */
    giveUp: Effect.suspend(() =>
      Effect.andThen(
        closeAll([...open].reverse(), Exit.fail("the answer was not delivered")),
        Effect.promise(() => Promise.allSettled(closing))
      )
    )
  }
})

/** A finalizer that dies is the driver's fault; the others still run. */
const closeAll = Effect.fnUntraced(function* (
  scopes: ReadonlyArray<Scope.Closeable>,
  exit: Exit.Exit<void, string>
) {
  for (const scope of scopes) {
    yield* Effect.catchCause(Scope.close(scope, exit), (cause) =>
      Effect.logError("settling the delivery of an answer failed", cause)
    )
  }
})

/** Runs one call. Its scope is added to `open` if something depends on the delivery of its answer. */
const invoke = (
  { method: name, params }: JsonRpc.Call,
  deliveries: Deliveries,
  open: Array<Scope.Closeable>
): Effect.Effect<unknown, JsonRpc.RpcError, Driver> => {
  const method = methods.get(name)
  if (method === undefined) {
    return Effect.fail(JsonRpc.methodNotFound(`${preview(name)} is not one of ${Method.literals.join(", ")}`))
  }
  const request = requestOf(method, params)
  if (Result.isFailure(request)) return Effect.fail(paramsError(request.failure))
  const { value, owner } = request.success
  const scope = deliveries.begin()
  const answered = Effect.provideService(call(method, valueBody(value)), Scope.Scope, scope)
  return Effect.matchCauseEffect(
    owner === undefined ? answered : Effect.provideService(answered, CurrentOwner, owner),
    {
      onSuccess: (answer) => {
        if (scope.state._tag === "Empty") deliveries.forget(scope)
        else open.push(scope)
        return Effect.succeed(answer)
      },
      onFailure: (cause) => {
        deliveries.forget(scope)
        return Effect.andThen(closeAll([scope], Exit.fail("the call failed")), Effect.fail(errorOf(cause)))
      }
    }
  )
}

const methods = new Map<string, Method>(
  Method.literals.flatMap((method): ReadonlyArray<readonly [string, Method]> => {
    const [service, short] = method.split(".") as [string, string]
    return service === "PortMapper"
      ? [[method, method] as const, [short, method] as const]
      : [[method, method]]
  })
)

/** The request in `params`, and the owner removed from it. */
const requestOf = (
  method: Method,
  params: JsonRpc.Call["params"]
): Result.Result<{ readonly value: unknown; readonly owner: string | undefined }, RequestError> => {
  if (params instanceof JsonObject) return takeOwner(params)
  if (params !== undefined && params.length > 1)
    return badParams("params", params, `one request, ${oneRequest}`)
  const [value] = params ?? []
  if (value instanceof JsonObject) return takeOwner(value)
  if (value !== undefined) return Result.succeed({ value, owner: undefined })
  return method === "PortMapper.MapPorts" || method === "PortMapper.UnmapPorts"
    ? badParams("", undefined, `params are missing: they must be the request, ${oneRequest}`)
    : Result.succeed({ value: null, owner: undefined })
}

const oneRequest = "an object, or an array that holds it"

const takeOwner = (
  request: JsonObject
): Result.Result<{ readonly value: unknown; readonly owner: string | undefined }, RequestError> => {
  const named = request.entries.findLast(isOwnerEntry)?.[1]
  if (named === undefined) return Result.succeed({ value: request, owner: undefined })
  const value = new JsonObject(request.entries.filter((entry) => !isOwnerEntry(entry)))
  if (named === null || named === "") return Result.succeed({ value, owner: undefined })
  return typeof named === "string" && isOwner(named)
    ? Result.succeed({ value, owner: named })
    : badParams("Owner", named, ownerRule)
}

/** Case-insensitive, like the other fields. */
const isOwnerEntry = ([key]: readonly [string, JsonValue]): boolean => key.toLowerCase() === "owner"

const badParams = (path: string, value: unknown, rule: string): Result.Result<never, RequestError> =>
  Result.fail(new RequestError({ issues: [{ path, value: path === "" ? "" : preview(value), rule }] }))

const paramsError = ({ message, issues }: RequestError): JsonRpc.RpcError => ({
  code: JsonRpc.code.invalidParams,
  message,
  data: { issues: issues.slice(0, mostIssues) }
})

const errorOf = (cause: Cause.Cause<CallError>): JsonRpc.RpcError => {
  const failure = failureOf(cause)
  const { kind, message } = failure
  if (kind === "defect") return { code: JsonRpc.code.internalError, message }
  const { error } = failure
  if (error instanceof RequestError) return paramsError(error)
  return kind === "notFound"
    ? { code: JsonRpc.code.methodNotFound, message }
    : { code: JsonRpc.code.driverError, message, data: { code: error._tag } }
}
