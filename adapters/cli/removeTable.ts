/** Removes the kernel's table, and with it every redirection, if no live process uses it. */
import { Effect, type Scope } from "effect"
import type { FirewallError } from "../../src/firewall/Firewall.ts"
import { libc } from "../linux/Libc.ts"
import { makeNamespaceLock } from "../linux/nft/NamespaceLock.ts"
import { draftOf } from "../linux/nft/NftDefinition.ts"
import { deleteTable } from "../linux/nft/NftTable.ts"
import { type CommandFailed, failed } from "./failure.ts"
import { processText } from "./holders.ts"

const table = "portmapper"

/** Keeps other processes off the table until the scope closes; returns how to remove it, and whether there was one. */
export const tableRemoval: Effect.Effect<
  Effect.Effect<boolean, FirewallError>,
  CommandFailed,
  Scope.Scope
> = Effect.flatMap(makeNamespaceLock(table), ({ take }) =>
  take.pipe(
    Effect.map((netlink) =>
      Effect.suspend(() => {
        // A process that was killed while compiling left its draft.
        deleteTable(netlink, libc(), draftOf(table))
        return Effect.fromResult(deleteTable(netlink, libc(), table))
      })
    ),
    Effect.catchTags({
      NamespaceBusy: ({ pid }) =>
        Effect.fail(
          failed("reset refused", `${processText(pid)} keeps the table inet ${table}; stop it first`)
        ),
      // If this process may not change tables, or the host has none, there is nothing to remove.
      FirewallError: (error) =>
        Effect.succeed(
          error.reason === "Denied" || error.reason === "Unsupported"
            ? Effect.succeed(false)
            : Effect.fail(error)
        )
    })
  )
)
