/**
 * What a service owes systemd: to take the sockets that it passes, and to say when it is ready and when it stops.
 * Sources: sd_listen_fds(3), sd_notify(3).
 */
import { Effect, Schema } from "effect"

/** The first descriptor that is passed; the others follow it. */
const firstFd = 3

export interface PassedSocket {
  readonly fd: number
  /** `FileDescriptorName=` of the socket's unit; the unit's own name where that is not set. */
  readonly name: string
}

export class SystemdError extends Schema.TaggedError<SystemdError>()("SystemdError", {
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
 * The sockets that were passed to this process; none where they were passed to another one, such as the `npm` that
 * started it. The variables are removed, so that no child takes them for its own: the second call answers none.
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

/** Says how the service is: `READY`, `STOPPING`, `STATUS` and the like. */
export type Notify = (state: Readonly<Record<string, string>>) => Effect.Effect<void>

/**
 * The way to systemd, or one that leads nowhere where no systemd asks. `NOTIFY_SOCKET` is removed, so that no child
 * speaks in this service's name. A message that can't be sent is logged: nothing that is served depends on it.
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
 * Ready from here on until the scope closes; to be called last, so that the stop is told first. A process that systemd did
 * not start names itself, since it took over from the one that it did; whose stop is then no stop of the service.
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
