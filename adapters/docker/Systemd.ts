/**
 * The service's side of systemd: take the passed sockets, and report when it is ready and when it stops.
 * Sources: sd_listen_fds(3), sd_notify(3).
 */
import { Effect, Schema } from "effect"

/** The first passed descriptor; the others follow it. */
const firstFd = 3

export interface PassedSocket {
  readonly fd: number
  /** `FileDescriptorName=` of the socket unit; by default the unit's name. */
  readonly name: string
}

class SystemdError extends Schema.TaggedError<SystemdError>()("SystemdError", {
  variable: Schema.String,
  value: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.variable}=${this.value}: ${this.detail}`
  }
}

type Environment = Record<string, string | undefined>

/**
 * The sockets that were passed to this process; none if they were passed to another one, such as the `npm` that
 * started it. Removes the variables, so that no child process takes the sockets for its own: a second call returns
 * none.
 */
export const takePassedSockets = (
  environment: Environment = process.env,
  pid: number = process.pid
): Effect.Effect<ReadonlyArray<PassedSocket>, SystemdError> =>
  Effect.suspend(() => {
    const { LISTEN_FDNAMES: names, LISTEN_FDS: count, LISTEN_PID: owner } = environment
    for (const name of ["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"])
      delete environment[name]
    if (count === undefined || owner !== String(pid)) return Effect.succeed([])
    if (!/^\d{1,4}$/.test(count))
      return Effect.fail(
        new SystemdError({ variable: "LISTEN_FDS", value: count, detail: "expected the number of sockets" })
      )
    const named = names?.split(":") ?? []
    return Effect.succeed(
      Array.from({ length: Number(count) }, (_, index) => ({
        fd: firstFd + index,
        name: named[index] || "unknown"
      }))
    )
  })

/**
 * Sends one datagram to a Unix socket. `path` is the socket's address as in `sockaddr_un`: a path, or, where it begins
 * with a zero byte, a name in the abstract namespace. MUST NOT wait for a receiver that does not read.
 */
export type SendUnixDatagram = (
  path: string,
  bytes: Uint8Array
) => Effect.Effect<void, { readonly message: string }>

/** Reports the service's state: `READY`, `STOPPING`, `STATUS` and the like. */
export type Notify = (state: Readonly<Record<string, string>>) => Effect.Effect<void>

/**
 * The notifier of systemd; it does nothing if systemd expects no notifications. Removes `NOTIFY_SOCKET`, so that no
 * child process speaks for this service. A message that can't be sent is logged: serving does not depend on it.
 */
export const takeNotify = (
  send: SendUnixDatagram,
  environment: Environment = process.env
): Effect.Effect<Notify> =>
  Effect.gen(function* (): Effect.fn.Return<Notify> {
    const address = environment["NOTIFY_SOCKET"]
    delete environment["NOTIFY_SOCKET"]
    if (address === undefined || address === "") return () => Effect.void
    if (!/^[/@]./.test(address)) {
      yield* Effect.logWarning(
        `systemd is not notified: NOTIFY_SOCKET=${address} is neither a path nor @NAME`
      )
      return () => Effect.void
    }
    const path = address.replace(/^@/, "\0")
    return (state) =>
      Effect.catch(send(path, new TextEncoder().encode(lines(state))), (error) =>
        Effect.logWarning(`systemd was not notified: ${error.message}`)
      )
  })

/**
 * Reports the service ready, and stopping when the scope closes; to be called last, so that the stop is reported
 * first. A process that took over from the one that systemd started names itself as the main process; the old one's
 * stop is then not reported as a stop of the service.
 */
export const announce = (
  notify: Notify,
  status: string,
  { tookOver = false, isLeaving = () => false }: { tookOver?: boolean; isLeaving?: () => boolean } = {}
) =>
  Effect.acquireRelease(
    notify({ ...(tookOver ? { MAINPID: String(process.pid) } : {}), READY: "1", STATUS: status }),
    () => (isLeaving() ? Effect.void : notify({ STOPPING: "1", STATUS: "finishing the requests in flight" }))
  )

const lines = (state: Readonly<Record<string, string>>): string =>
  Object.entries(state)
    .map(([name, value]) => `${name}=${value.replaceAll("\n", " ")}`)
    .join("\n")
