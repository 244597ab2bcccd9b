/** Takes the kernel's table away, and with it every redirection. A process that may not change tables has made none. */
import { Effect } from "effect"
import { FirewallError } from "../../src/firewall/Firewall.ts"
import { findNft, loadByNft } from "../linux/NftCommand.ts"
import { isRoot } from "./options.ts"

/** Whether there was a table. */
export const removeTable: Effect.Effect<boolean, FirewallError> = Effect.suspend(() => {
  const nft = findNft(process.env["PATH"] ?? "")
  if (nft === undefined || !isRoot()) return Effect.succeed(false)
  return loadByNft(nft, "removing the table", "delete table inet portmapper\n").pipe(
    Effect.as(true),
    Effect.catch((error) =>
      error instanceof FirewallError && /no such file or directory/i.test(error.detail)
        ? Effect.succeed(false)
        : Effect.fail(error)
    )
  )
})
