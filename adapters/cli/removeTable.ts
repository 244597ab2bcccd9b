/** Takes the kernel's table away, and with it every redirection, where no process that lives has it. */
import { Effect, type Scope } from "effect"
import type { FirewallError } from "../../src/firewall/Firewall.ts"
import { libc } from "../linux/Libc.ts"
import { makeNamespaceLock } from "../linux/nft/NamespaceLock.ts"
import { draftOf } from "../linux/nft/NftDefinition.ts"
import { deleteTable } from "../linux/nft/NftTable.ts"
import { type CommandFailed, failed } from "./failure.ts"
import { processText } from "./holders.ts"

const table = "portmapper"

/** Keeps other processes off the table until the scope closes; answers how to remove it, and whether there was one. */
export const claimTable: Effect.Effect<
  Effect.Effect<boolean, FirewallError>,
  CommandFailed,
  Scope.Scope
> = Effect.flatMap(makeNamespaceLock(table), ({ take }) =>
  take.pipe(
    Effect.map((netlink) =>
      Effect.suspend(() => {
        // One that was killed while it compiled left its draft.
        deleteTable(netlink, libc(), draftOf(table))
        return Effect.fromResult(deleteTable(netlink, libc(), table))
      })
    ),
    Effect.catchTags({
      NamespaceBusy: ({ pid }) =>
        Effect.fail(
          failed("reset refused", `${processText(pid)} keeps the table inet ${table}; stop it first`)
        ),
      // A process that may not change tables, or has none to change, has made none.
      FirewallError: (error) =>
        Effect.succeed(
          error.reason === "Denied" || error.reason === "Unsupported"
            ? Effect.succeed(false)
            : Effect.fail(error)
        )
    })
  )
)
