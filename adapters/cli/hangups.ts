/** SIGHUP as in other daemons: reloads files, and the process goes on. */
import { Effect, Queue, type Scope } from "effect"
import type { Renewals } from "../docker/TlsFiles.ts"

/** Until the scope closes, SIGHUP runs all registered effects, one after the other. */
export const hangups: Effect.Effect<Renewals, never, Scope.Scope> = Effect.gen(function* () {
  const registered = new Set<Effect.Effect<void>>()
  const asked = yield* Queue.sliding<void>(1)
  const ask = () => void Queue.offerUnsafe(asked, undefined)
  yield* Effect.acquireRelease(
    Effect.sync(() => process.on("SIGHUP", ask)),
    () => Effect.sync(() => process.off("SIGHUP", ask))
  )
  yield* Queue.take(asked).pipe(
    Effect.andThen(Effect.suspend(() => (registered.size === 0 ? nothing : Effect.all([...registered])))),
    Effect.forever,
    Effect.forkScoped
  )
  return (renew) =>
    Effect.asVoid(
      Effect.acquireRelease(
        Effect.sync(() => registered.add(renew)),
        () => Effect.sync(() => registered.delete(renew))
      )
    )
})

const nothing = Effect.logInfo("SIGHUP: there are no TLS files to reload")
