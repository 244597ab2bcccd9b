/** The user's token: got by the first request, and anew when etcd no longer knows it. */
import * as Fs from "node:fs"
import { Effect, Semaphore } from "effect"
import { ClusterError } from "../../src/cluster/Etcd.ts"
import { systemReason } from "../docker/systemReason.ts"
import { type EtcdAnswer, isTokenUnknown } from "./EtcdFailures.ts"
import { decodeToken, type EtcdRequest } from "./EtcdMessages.ts"
import type { EtcdOptions } from "./EtcdOptions.ts"

type Post = (request: EtcdRequest<string>) => Effect.Effect<string, ClusterError | EtcdAnswer>

/** Runs a request with a token, twice if etcd does not know the first one; without one where there is no user. */
export const makeLogin = Effect.fnUntraced(function* ({ user, passwordFile }: EtcdOptions, post: Post) {
  const one = yield* Semaphore.make(1)
  let known: string | undefined

  const authenticate = Effect.gen(function* () {
    const password = yield* readPassword(passwordFile)
    const body = { name: user, password }
    known = yield* post({ path: "/v3/auth/authenticate", body, decode: decodeToken })
    return known
  })

  /** Another request may have logged in meanwhile. */
  const tokenInsteadOf = (old: string | undefined) =>
    one.withPermit(
      Effect.suspend(() => (known === undefined || known === old ? authenticate : Effect.succeed(known)))
    )

  return <A, R>(
    run: (token: string | undefined) => Effect.Effect<A, ClusterError | EtcdAnswer, R>
  ): Effect.Effect<A, ClusterError | EtcdAnswer, R> =>
    Effect.suspend(() => {
      if (user === undefined) return run(undefined)
      const token = known === undefined ? tokenInsteadOf(undefined) : Effect.succeed(known)
      return Effect.flatMap(token, (first) =>
        Effect.catchTag(run(first), "EtcdAnswer", (answer) =>
          isTokenUnknown(answer) ? Effect.flatMap(tokenInsteadOf(first), run) : Effect.fail(answer)
        )
      )
    })
})

const readPassword = (file: string | undefined): Effect.Effect<string, ClusterError> =>
  file === undefined
    ? Effect.succeed("")
    : Effect.try({
        try: () => Fs.readFileSync(file, "utf8").replace(/\r?\n$/, ""),
        catch: (error) =>
          new ClusterError({
            reason: "Denied",
            endpoint: file,
            detail: `the password can't be read: ${systemReason(error)}`,
            mayBeDone: false
          })
      })
