import * as Net from "node:net"
import { Effect } from "effect"

/** Why no connection can be made there, without an answer within a second too; `undefined` where a process listens. */
export const connectionError = (
  target: Net.NetConnectOpts
): Effect.Effect<NodeJS.ErrnoException | undefined> =>
  Effect.callback((resume) => {
    const probe = Net.connect(target)
    const end = (error: NodeJS.ErrnoException | undefined) => {
      probe.destroy()
      resume(Effect.succeed(error))
    }
    probe.setTimeout(1000, () => end(new Error("no answer within 1 s")))
    probe.once("connect", () => end(undefined)).once("error", end)
  })
