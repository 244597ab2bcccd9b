/**
 * The protocol's calls, common to all transports: decode the request, call the `Driver`, return plain data in Go's
 * field order. Each transport defines how it carries calls, answers and errors; `kindOf` is the classification they
 * share.
 */
import { Cause, Duration, Effect, Option, Result, Schema, type Scope } from "effect"
import {
  activateResponse,
  fullRangeResponse,
  listPortsResponse,
  mapPortsResponse,
  unmapPortsResponse
} from "./Answers.ts"
import { CallObserver, type FinishedCall } from "./CallObserver.ts"
import { Driver, type DriverError, type GroupsError, ListedOwner, ListedScope } from "./Driver.ts"
import { bindingsOfRange, groupsOfRange } from "./FullRange.ts"
import { preview } from "./GoJson.ts"
import { decodeText, decodeValue, unreadable } from "./GoSchema.ts"
import {
  type ActivateResponse,
  DrainRequest,
  FollowContainerRequest,
  FollowInterfaceRequest,
  ListPortsRequest,
  type ListPortsResponse,
  MapGroupsRequest,
  type MapGroupsResponse,
  MapPortsRequest,
  type MapPortsResponse,
  UnmapPortsRequest,
  type UnmapPortsResponse
} from "./Messages.ts"
import type { Group, PortBinding, Release } from "./PortBinding.ts"
import type { PortRange } from "./PortRange.ts"
import { RequestError } from "./RequestError.ts"
import {
  drainOf,
  followInterfaceOf,
  followOf,
  fullRangeOf,
  groupOf,
  groupPath,
  groupsOf,
  issuesOfGroup,
  releaseOf
} from "./Requests.ts"

export const Method = Schema.Literals([
  "Plugin.Activate",
  "PortMapper.MapPorts",
  "PortMapper.UnmapPorts",
  "PortMapper.ListPorts",
  "PortMapper.MapGroups",
  "PortMapper.FollowContainer",
  "PortMapper.FollowInterface",
  "PortMapper.Drain",
  "PortMapper.Undrain"
])
export type Method = typeof Method.Type

/**
 * A request as received: JSON text, or a value (plain data from a caller in process, or a tree of `GoJson.parse`).
 */
export type Body =
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "Value"; readonly value: unknown }

export const textBody = (text: string): Body => ({ _tag: "Text", text })
export const valueBody = (value: unknown): Body => ({ _tag: "Value", value })

/** Plain data, for `JSON.stringify`. */
export type Answer =
  | typeof ActivateResponse.Encoded
  | typeof MapPortsResponse.Encoded
  | typeof MapGroupsResponse.Encoded
  | typeof UnmapPortsResponse.Encoded
  | typeof ListPortsResponse.Encoded

export type CallError = RequestError | MethodNotFound | CallTimedOut | DriverError

/**
 * The time limit of every call: the Engine has none, and blocks every container start while it waits. The driver is
 * then interrupted; its uninterruptible parts (a half-done change, undoing it) still run to their end.
 */
export const callTimeout = Duration.seconds(10)

/** The driver does not offer this method. */
export class MethodNotFound extends Schema.TaggedError<MethodNotFound>()("MethodNotFound", {
  method: Schema.String
}) {
  override get message(): string {
    return `${this.method}: this port mapper does not know the method`
  }
}

/** The driver took too long and was interrupted. By its contract it has undone what it had begun to map. */
export class CallTimedOut extends Schema.TaggedError<CallTimedOut>()("CallTimedOut", {
  method: Method,
  seconds: Schema.Number
}) {
  override get message(): string {
    return `${this.method} failed: no answer within ${this.seconds} s, the call was given up`
  }
}

/**
 * Makes one call. The scope is the delivery of the answer (see `Driver.mapPorts`): the transport closes it with
 * success once the answer is written, with a failure otherwise. A defect of the driver stays a defect.
 */
export const call = (method: Method, body: Body): Effect.Effect<Answer, CallError, Driver | Scope.Scope> =>
  Effect.withFiber((caller) => {
    const called = inTime(method, operations[method](body))
    const observe = caller.getRef(CallObserver)
    return observe === undefined ? called : observed(method, called, observe)
  })

/**
 * `MapPorts` for an adapter in process that uses the domain types, with the time limit and the checks of a wire
 * call.
 */
export const mapGroup = (
  group: Group
): Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Driver | Scope.Scope> =>
  inTime("PortMapper.MapPorts", granted(group))

/** The same for several groups, all of them or none. */
export const mapGroupsTogether = (
  groups: ReadonlyArray<Group>
): Effect.Effect<ReadonlyArray<ReadonlyArray<PortBinding>>, DriverError, Driver | Scope.Scope> =>
  inTime("PortMapper.MapGroups", Effect.mapError(grantedAll(groups), ofGroup))

/** `UnmapPorts` for such an adapter. */
export const unmapBindings = (release: Release): Effect.Effect<void, DriverError, Driver> =>
  inTime(
    "PortMapper.UnmapPorts",
    Driver.use((driver) => driver.unmapPorts(release))
  )

/**
 * Classifies an error: `request` is invalid in itself (HTTP 400, JSON-RPC −32602), `notFound` is an unknown method
 * (404, −32601), `driver` depends on the state of the host (500, −32000). A defect is none of them (500, −32603).
 */
export const kindOf = (error: CallError): "request" | "notFound" | "driver" => {
  if (error instanceof RequestError) return "request"
  return error instanceof MethodNotFound ? "notFound" : "driver"
}

/** What the transports report for a failed call. A defect has no `error` to handle. */
export type Failure =
  | { readonly kind: "request" | "notFound" | "driver"; readonly message: string; readonly error: CallError }
  | { readonly kind: "defect"; readonly message: string }

export const failureOf = (cause: Cause.Cause<CallError>): Failure => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  return error === undefined
    ? { kind: "defect", message: `internal error: ${Cause.pretty(cause).split("\n")[0]}` }
    : { kind: kindOf(error), message: error.message, error }
}

const inTime = <A, E, R>(
  method: Method,
  called: Effect.Effect<A, E, R>
): Effect.Effect<A, E | CallTimedOut, R> =>
  spanned(
    method,
    Effect.timeoutOrElse(called, {
      duration: callTimeout,
      orElse: () => Effect.fail(new CallTimedOut({ method, seconds: Duration.toSeconds(callTimeout) }))
    })
  )

/** A span, if a tracer was provided: an unread one costs 5 µs. */
const spanned = <A, E, R>(method: Method, called: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((caller) =>
    caller.cache.tracer === undefined
      ? called
      : Effect.withSpan(called, method, { kind: "server", captureStackTrace: false })
  )

const observed = <R>(
  method: Method,
  called: Effect.Effect<Answer, CallError, R>,
  observe: (call: FinishedCall) => void
): Effect.Effect<Answer, CallError, R> =>
  Effect.clockWith((clock) => {
    const begun = clock.monotonicTimeNanosUnsafe()
    return Effect.onExit(called, (exit) =>
      Effect.sync(() =>
        observe({ method, millis: Number(clock.monotonicTimeNanosUnsafe() - begun) / 1e6, exit })
      )
    )
  })

const activate = Effect.fnUntraced(function* (_: Body): Operating<typeof ActivateResponse.Encoded> {
  const driver = yield* Driver
  if (driver.activated !== undefined) yield* driver.activated
  return activateResponse
})

const mapPorts = (body: Body): Operation<typeof MapPortsResponse.Encoded> =>
  Effect.suspend(() => {
    const request = decodeMapPorts(body)
    if (Result.isFailure(request)) return Effect.fail<CallError>(request.failure)
    const group = groupOf(request.success)
    if (Result.isFailure(group)) return Effect.fail<CallError>(group.failure)
    const range = fullRangeOf(request.success)
    return range === undefined
      ? Effect.map(granted(group.success), mapPortsResponse)
      : mapFullRange(group.success, range)
  })

const mapFullRange = (group: Group, range: PortRange): Operation<typeof MapPortsResponse.Encoded> =>
  Effect.mapBoth(grantedAll(groupsOfRange(group, range)), {
    onFailure: ({ error }) => error,
    onSuccess: (answers) => fullRangeResponse(bindingsOfRange(answers), range)
  })

const mapGroups = Effect.fnUntraced(function* (body: Body): Operating<typeof MapGroupsResponse.Encoded> {
  const groups = yield* Effect.fromResult(Result.flatMap(decodeMapGroups(body), groupsOf))
  const bindings = yield* Effect.mapError(grantedAll(groups), ofGroup)
  return { Groups: bindings.map(mapPortsResponse), Err: "" }
})

const ofGroup = ({ group, error }: GroupsError): DriverError => {
  if (group === undefined) return error
  return error instanceof RequestError
    ? new RequestError({ issues: issuesOfGroup(group, error.issues) })
    : { _tag: error._tag, message: `${groupPath(group)}: ${error.message}` }
}

/** All groups share one delivery: when a group fails, those before it are undone as if their answer had been lost. */
const grantedAll = Effect.fnUntraced(function* (
  groups: ReadonlyArray<Group>
): Effect.fn.Return<ReadonlyArray<ReadonlyArray<PortBinding>>, GroupsError, Driver | Scope.Scope> {
  const driver = yield* Driver
  if (driver.mapGroups === undefined)
    return yield* Effect.forEach(groups, (group, index) =>
      Effect.mapError(granted(group), (error) => ({ group: index, error }))
    )
  const answers = yield* driver.mapGroups(groups)
  if (answers.length !== groups.length)
    return yield* Effect.die(
      new Error(`the driver returned ${answers.length} groups for a request of ${groups.length}`)
    )
  for (const [index, group] of groups.entries()) yield* eachAnswered(group, answers[index] ?? [])
  return answers
})

/** The driver must return one binding for each entry; any other number is a defect of the driver. */
const granted = (
  group: Group
): Effect.Effect<ReadonlyArray<PortBinding>, DriverError, Driver | Scope.Scope> =>
  Effect.flatMap(
    Driver.use((driver) => driver.mapPorts(group)),
    (bindings) => eachAnswered(group, bindings)
  )

const eachAnswered = (
  { entries }: Group,
  bindings: ReadonlyArray<PortBinding>
): Effect.Effect<ReadonlyArray<PortBinding>> =>
  bindings.length === entries.length
    ? Effect.succeed(bindings)
    : Effect.die(
        new Error(`the driver returned ${bindings.length} bindings for a group of ${entries.length} entries`)
      )

const unmapPorts = (body: Body): Operation<typeof UnmapPortsResponse.Encoded> =>
  Effect.suspend(() => {
    const release = Result.flatMap(decodeUnmapPorts(body), releaseOf)
    return Result.isFailure(release)
      ? Effect.fail<CallError>(release.failure)
      : Effect.as(
          Driver.use((driver) => driver.unmapPorts(release.success)),
          unmapPortsResponse
        )
  })

const listPorts = Effect.fnUntraced(function* (body: Body): Operating<typeof ListPortsResponse.Encoded> {
  const driver = yield* Driver
  if (driver.listPorts === undefined) return yield* new MethodNotFound({ method: "PortMapper.ListPorts" })
  const { OwnedBy: owner, Scope: scope } = yield* Effect.fromResult(decodeListPorts(body))
  if (scope !== "" && scope !== "host" && scope !== "cluster")
    return yield* new RequestError({
      issues: [{ path: "Scope", value: preview(scope), rule: "host or cluster, or not given" }]
    })
  const listPorts = Effect.provideService(driver.listPorts, ListedScope, scope || "host")
  if (owner === "") return listPortsResponse(yield* listPorts)
  const listed = yield* Effect.provideService(listPorts, ListedOwner, owner)
  return listPortsResponse(listed.filter((mapping) => mapping.owner === owner))
})

const followContainer = Effect.fnUntraced(function* (body: Body): Operating<typeof MapPortsResponse.Encoded> {
  const driver = yield* Driver
  if (driver.followContainer === undefined)
    return yield* new MethodNotFound({ method: "PortMapper.FollowContainer" })
  const follow = yield* Effect.fromResult(Result.flatMap(decodeFollow(body), followOf))
  return mapPortsResponse(yield* driver.followContainer(follow))
})

const followInterface = Effect.fnUntraced(function* (body: Body): Operating<typeof MapPortsResponse.Encoded> {
  const driver = yield* Driver
  if (driver.followInterface === undefined)
    return yield* new MethodNotFound({ method: "PortMapper.FollowInterface" })
  const follow = yield* Effect.fromResult(Result.flatMap(decodeFollowInterface(body), followInterfaceOf))
  return mapPortsResponse(yield* driver.followInterface(follow))
})

const draining = (method: Method, drained: boolean) =>
  Effect.fnUntraced(function* (body: Body): Operating<typeof MapPortsResponse.Encoded> {
    const driver = yield* Driver
    if (driver.drain === undefined) return yield* new MethodNotFound({ method })
    const request = yield* Effect.fromResult(
      Result.flatMap(decodeDrain(body), (message) => drainOf(message, drained))
    )
    return mapPortsResponse(yield* driver.drain(request))
  })

type Operation<A> = Effect.Effect<A, CallError, Driver | Scope.Scope>
type Operating<A> = Effect.fn.Return<A, CallError, Driver | Scope.Scope>

const operations = {
  "Plugin.Activate": activate,
  "PortMapper.MapPorts": mapPorts,
  "PortMapper.UnmapPorts": unmapPorts,
  "PortMapper.ListPorts": listPorts,
  "PortMapper.MapGroups": mapGroups,
  "PortMapper.FollowContainer": followContainer,
  "PortMapper.FollowInterface": followInterface,
  "PortMapper.Drain": draining("PortMapper.Drain", true),
  "PortMapper.Undrain": draining("PortMapper.Undrain", false)
} satisfies Record<Method, (body: Body) => Effect.Effect<Answer, CallError, Driver | Scope.Scope>>

const decoder = <T>(
  name: string,
  schema: Schema.ConstraintDecoder<T>
): ((body: Body) => Result.Result<T, RequestError>) => {
  const fromText = decodeText(schema)
  const fromValue = decodeValue(schema)
  return (body) => {
    if (body._tag === "Value") return fromValue(body.value)
    return /^[ \t\r\n]*$/.test(body.text) ? Result.fail(unreadable(emptyBody(name))) : fromText(body.text)
  }
}

/** The Engine retries a call whose connection broke, but without its body: its user then sees this message. */
const emptyBody = (name: string): string =>
  `the body of ${name} is empty (unexpected end of JSON input): the connection broke during a first attempt, ` +
  "and the Engine repeats the call without its body; this one changed nothing, try again"

const decodeMapPorts = decoder("MapPorts", MapPortsRequest)
const decodeMapGroups = decoder("MapGroups", MapGroupsRequest)
const decodeUnmapPorts = decoder("UnmapPorts", UnmapPortsRequest)
const decodeListPorts = decoder("ListPorts", ListPortsRequest)
const decodeFollow = decoder("FollowContainer", FollowContainerRequest)
const decodeFollowInterface = decoder("FollowInterface", FollowInterfaceRequest)
const decodeDrain = decoder("Drain", DrainRequest)
