/** The relay's threads as `LinuxRelay` uses them: wraps the callbacks of `ThreadPool` as effects. */
import { Clock, Effect, type Scope } from "effect"
import {
  type Assigned,
  type Counters,
  type Refused,
  type Stopped,
  ThreadPool,
  type ThreadsOptions
} from "./ThreadPool.ts"

export interface RelayThreads {
  /**
   * The id of a new route, and the thread of a UDP route: the one that has the other routes of its socket, if there
   * are any. `undefined` if the maximum number of routes is reached.
   */
  readonly assign: (
    protocol: "tcp" | "udp",
    besides: number | undefined
  ) => { id: number; thread: number | undefined } | undefined
  /** Serves the route of `assigned` from now on; fails with the reason if a thread can't. */
  readonly serve: (assigned: Assigned) => Effect.Effect<void, string>
  /** Returns when no thread uses the route's socket any more; its connections end later, and then its id is free. */
  readonly stop: (stopped: Stopped) => Effect.Effect<void>
  readonly counters: (id: number) => Counters
  readonly refused: () => Refused
  /**
   * Starts to accept connections and packets, if the threads were made paused; fails with the reason if one can't.
   */
  readonly resume: Effect.Effect<void, string>
  /**
   * Stops accepting for good. Returns when no thread accepts or reads from a reserved socket any more; what began
   * before continues for the grace time, a UDP flow for as long as an answer may be on its way.
   */
  readonly drain: (graceMillis: number) => Effect.Effect<void>
  /** Returns when nothing is left of these routes, all of which were stopped or drained. */
  readonly ended: (ids: ReadonlyArray<number>) => Effect.Effect<void>
  /** The same for every route that was stopped or drained. */
  readonly allEnded: Effect.Effect<void>
  /** Whether anything is left of a stopped or drained route. */
  readonly isEnding: (id: number) => boolean
}

export const makeRelayThreads = (options: ThreadsOptions): Effect.Effect<RelayThreads, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.all([Effect.context<never>(), Clock.Clock]), ([context, clock]) => {
      const fork = Effect.runForkWith(context)
      return new ThreadPool(options, {
        error: (message) => void fork(Effect.logError(message)),
        warning: (message) => void fork(Effect.logWarning(message)),
        now: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      })
    }),
    (pool) => Effect.promise(() => pool.end())
  ).pipe(
    Effect.map((pool) => ({
      assign: (protocol, besides) => pool.assign(protocol, besides),
      serve: (assigned) =>
        Effect.callback((resume) =>
          pool.serve(assigned, (failure) =>
            resume(failure === undefined ? Effect.void : Effect.fail(failure))
          )
        ),
      stop: (stopped) => Effect.callback((resume) => pool.stop(stopped, () => resume(Effect.void))),
      counters: (id) => pool.countersOf(id),
      refused: () => pool.refused(),
      resume: Effect.callback((resume) =>
        pool.resume((failure) => resume(failure === undefined ? Effect.void : Effect.fail(failure)))
      ),
      drain: (graceMillis) => Effect.callback((resume) => pool.drain(graceMillis, () => resume(Effect.void))),
      ended: (ids) => Effect.callback((resume) => pool.whenEnded(ids, () => resume(Effect.void))),
      allEnded: Effect.callback((resume) => pool.whenEnded(pool.endingIds(), () => resume(Effect.void))),
      isEnding: (id) => pool.isEnding(id)
    }))
  )
