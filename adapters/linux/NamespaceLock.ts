/**
 * One process at a time on the kernel's table of a network namespace: two would each take the other's elements for
 * leftovers. The lock is a name in the namespace's own abstract sockets, so the kernel drops it with its process.
 */
import * as Net from "node:net"
import { Effect, Schema, type Scope } from "effect"

export class NamespaceBusy extends Schema.TaggedError<NamespaceBusy>()("NamespaceBusy", {}) {
  override get message(): string {
    return "another process keeps the table inet portmapper of this network namespace"
  }
}

/** Held until the scope has closed. Nobody who connects is answered. */
export const lockNamespace: Effect.Effect<void, NamespaceBusy, Scope.Scope> = Effect.asVoid(
  Effect.acquireRelease(
    Effect.callback<Net.Server, NamespaceBusy>((resume) => {
      const server = Net.createServer((socket) => socket.destroy())
      server.once("error", () => resume(Effect.fail(new NamespaceBusy())))
      server.listen("\0portmapper-nat", () => {
        server.unref()
        resume(Effect.succeed(server))
      })
    }),
    (server) => Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
  )
)
