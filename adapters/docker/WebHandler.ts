/**
 * The plugin as a web-standard `fetch` handler: `(request: Request) => Promise<Response>`, as serverless hosts
 * expect. Same paths, status codes, limits and texts as on a socket (`Routes`).
 */
import { Effect, Exit, Layer, ManagedRuntime, type Scope } from "effect"
import { CurrentOwner, Driver, type DriverError } from "../../src/protocol/Driver.ts"
import { type CallError, call, failureOf, textBody } from "../../src/protocol/Operations.ts"
import {
  answerText,
  type CallRoute,
  contentType,
  decodeBody,
  errorText,
  type HandlerRoute,
  type Head,
  maxBodyBytes,
  ownerHeader,
  type PageRoute,
  pageFailed,
  type Refusal,
  type RouteOptions,
  refusedAs,
  routeOf,
  stopping,
  tooLarge
} from "./Routes.ts"

/**
 * Resolves for every request but an aborted one, which rejects with its signal's reason: its call is interrupted and
 * undone. Resolving is the delivery of the answer.
 */
export interface WebHandler {
  (request: Request): Promise<Response>
  /** Finishes requests in flight, answers later ones with 503, then releases the layer. */
  readonly dispose: () => Promise<void>
}

/**
 * A handler over a driver, or over a layer of one, which is built at the first request. On Cloudflare's Workers a
 * timer ends with the request that set it, so a driver whose calls wait for each other belongs in a Durable Object.
 */
export const toWebHandler = (
  driver: Driver["Service"] | Layer.Layer<Driver, DriverError>,
  options: RouteOptions = {}
): WebHandler => {
  const runtime = ManagedRuntime.make<Driver, DriverError>(
    "mapPorts" in driver ? Layer.succeed(Driver, driver) : driver
  )
  const inFlight = new Set<Promise<unknown>>()
  let stopped = false
  const handle = async (request: Request): Promise<Response> => {
    const { pathname, search } = new URL(request.url)
    const header = (name: string) => request.headers.get(name) ?? undefined
    const head: Head = {
      verb: request.method,
      path: pathname + search,
      owner: header(ownerHeader),
      origin: header("origin"),
      host: header("host")
    }
    const route = stopped ? stopping : routeOf(head, options)
    switch (route._tag) {
      case "Refusal":
        return refuse(route)
      case "Page":
        return runPage(runtime, request.method, route)
      case "Call":
        return runCall(runtime, request, route)
      case "Handler":
        return runHandler(runtime, request, route)
    }
  }
  return Object.assign(
    (request: Request) => {
      const answered = handle(request)
      inFlight.add(answered)
      const done = () => void inFlight.delete(answered)
      answered.then(done, done)
      return answered
    },
    {
      dispose: async () => {
        stopped = true
        await Promise.allSettled(inFlight)
        await runtime.dispose()
      }
    }
  )
}

type Runtime = ManagedRuntime.ManagedRuntime<Driver, DriverError>

const runCall = (runtime: Runtime, request: Request, { method, owner }: CallRoute): Promise<Response> =>
  answer(runtime, request, (text) =>
    Effect.map(call(method, textBody(text)), (answer) => respond(200, answerText(answer))).pipe(
      Effect.provideService(CurrentOwner, owner)
    )
  )

const runHandler = (runtime: Runtime, request: Request, { handler }: HandlerRoute): Promise<Response> => {
  const header = (name: string) => request.headers.get(name) ?? undefined
  return answer(runtime, request, (text) =>
    Effect.map(handler({ header, body: text }), ({ status, body, contentType }) =>
      respond(status, body, contentType)
    )
  )
}

const answer = async (
  runtime: Runtime,
  request: Request,
  answered: (text: string) => Effect.Effect<Response, CallError, Driver | Scope.Scope>
): Promise<Response> => {
  const { signal } = request
  const text = await readBody(request)
  if (text === undefined) return refuse(tooLarge)
  signal.throwIfAborted()
  const exit = await runtime.runPromiseExit(Effect.scoped(answered(text)), { signal })
  if (Exit.isSuccess(exit)) return exit.value
  signal.throwIfAborted()
  return refuse(refusedAs(failureOf(exit.cause)))
}

/** `undefined` if the body is over the limit; the rest of it is not read. */
const readBody = async (request: Request): Promise<string | undefined> => {
  if (Number(request.headers.get("content-length") ?? 0) > maxBodyBytes) return undefined
  const chunks: Array<Uint8Array> = []
  let length = 0
  for await (const chunk of request.body ?? []) {
    length += chunk.length
    if (length > maxBodyBytes) return undefined
    chunks.push(chunk)
  }
  return decodeBody(chunks)
}

const runPage = async (runtime: Runtime, verb: string, { page }: PageRoute): Promise<Response> => {
  const exit = await runtime.runPromiseExit(page)
  if (Exit.isFailure(exit)) return refuse(pageFailed(exit.cause))
  const { contentType, body } = exit.value
  return respond(200, verb === "HEAD" ? null : body, contentType)
}

const refuse = ({ status, reason }: Refusal): Response => respond(status, errorText(reason))

const respond = (status: number, body: string | null, type = contentType): Response =>
  new Response(body, { status, headers: { "Content-Type": type } })
