import type { Server } from "node:net"
import { Effect, type Scope } from "effect"

/** Lets a server listen on loopback until the scope closes; returns its URL. */
export const listening = (server: Server): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<string>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed(`http://127.0.0.1:${port}`))
      })
    }),
    () => Effect.sync(() => server.close())
  )
