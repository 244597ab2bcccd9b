/**
 * Executes through the running plugin's socket, when `front.sh` could not: waits for a plugin that is starting, and
 * says what to do if none comes.
 */
import { Clock, Effect, Result } from "effect"
import { type HttpAnswer, HttpCode, type HttpError, httpClient } from "../node/HttpClient.ts"
import { CniError, codes } from "./CniError.ts"
import { type Asked, type Execution, executePath, failed, type Outcome, outcomeType } from "./Execution.ts"
import { defaultPluginSocket, socketNamed } from "./NetworkConfig.ts"

/** An execution may take several calls, each limited to 10 s. */
const answerTimeoutMillis = 30_000

/**
 * `patienceMillis`: how long a command waits for a plugin that is missing, stopping, or ended without an answer. Such
 * a plugin's unfinished work is undone, so that each command can be repeated. `STATUS` does not wait.
 */
export const forward = (
  asked: Asked,
  variables: Execution["variables"],
  patienceMillis: number
): Promise<Outcome> => {
  const { socket, task, text } = asked
  const isStatus = task.command === "STATUS"
  const once = Effect.flatMap(
    Effect.mapError(
      httpClient({ _tag: "Pipe", path: socket }, { answerTimeoutMillis }).ask({
        method: "POST",
        path: executePath,
        headers: { "Content-Type": "application/json", ...headersOf(variables, text) },
        body: text
      }),
      (error) => unanswered(error, socket)
    ),
    (answer) => Effect.fromResult(outcomeIn(answer, socket))
  )
  const outcome = Effect.gen(function* () {
    const begun = yield* Clock.monotonicTimeNanos
    const bound = isStatus ? 0 : patienceMillis
    for (let pause = 20; ; pause = Math.min(2 * pause, 250)) {
      const result = yield* Effect.result(once)
      if (Result.isSuccess(result)) return result.success
      const { again, error } = result.failure
      const elapsed = Number((yield* Clock.monotonicTimeNanos) - begun) / 1e6
      if (!again || elapsed + pause > bound)
        return failed(isStatus ? new CniError(codes.unavailable, error.message, error.details) : error, text)
      yield* Effect.sleep(pause)
    }
  })
  return Effect.runPromise(outcome)
}

/** A variable's bytes, one character each, as a shell sends them. */
const headersOf = (variables: Execution["variables"], text: string): Record<string, string> =>
  Object.fromEntries(
    Object.entries({
      "CNI-Command": variables["CNI_COMMAND"],
      "CNI-ContainerID": variables["CNI_CONTAINERID"],
      "CNI-Netns": variables["CNI_NETNS"],
      "CNI-IfName": variables["CNI_IFNAME"],
      "Portmapper-Socket": socketNamed(text)
    }).map(([name, value = ""]) => [name, Buffer.from(value).toString("latin1")])
  )

/** `again`: a retry may succeed. */
interface Problem {
  readonly again: boolean
  readonly error: CniError
}

const unanswered = ({ code, connected, message }: HttpError, socket: string): Problem => {
  const problem = (again: boolean, kind: number, what: string, details?: string) => ({
    again,
    error: new CniError(kind, what, details)
  })
  if (code.startsWith("HPE_"))
    return problem(false, codes.internal, `the answer on ${socket} is not HTTP`, message)
  if (code === HttpCode.tooLong) return problem(false, codes.internal, `the answer of ${socket}: ${message}`)
  if (connected)
    return code === HttpCode.answerTimeout
      ? problem(false, codes.tryAgain, `the plugin on ${socket} gave no answer: ${message}`)
      : problem(true, codes.tryAgain, `the plugin on ${socket} closed the connection before an answer`)
  switch (code) {
    case "ENOENT":
    case "ENOTDIR":
    case "ECONNREFUSED":
      return problem(true, codes.tryAgain, `no portmapper serves ${socket}`, remedy(socket))
    case "EAGAIN":
      return problem(true, codes.tryAgain, `too many callers wait for the plugin on ${socket}`)
    default:
      return problem(false, codes.io, `the port mapper's socket ${socket} can't be used: ${message}`)
  }
}

const remedy = (socket: string): string =>
  `start it: systemctl start portmapper, or portmapper serve${socket === defaultPluginSocket() ? "" : ` --socket ${socket}`}`

const outcomeIn = (
  { body, headers, status }: HttpAnswer,
  socket: string
): Result.Result<Outcome, Problem> => {
  if (headers["content-type"] === outcomeType && (status === 200 || status === 500))
    return Result.succeed({ status: status === 200 ? 0 : 1, stdout: body })
  if (status === 503)
    return Result.fail({
      again: true,
      error: new CniError(codes.tryAgain, `the plugin on ${socket} is stopping`)
    })
  const what = `the plugin on ${socket} does not execute CNI commands: it is another plugin, or an older portmapper`
  const details = `it answered with HTTP status ${status} ${body.slice(0, 200)}`.trim()
  return Result.fail({ again: false, error: new CniError(codes.refused, what, details) })
}
