/** The tree of commands, the source of help, completions and manual pages. */
import { Effect } from "effect"
import { Command } from "effect/cli"
import { removeAccepted } from "../linux/nft/DockerUser.ts"
import { cni } from "./cni.ts"
import { conform } from "./conform.ts"
import { doctor } from "./doctor.ts"
import { ls } from "./ls.ts"
import { map } from "./map.ts"
import { isRoot } from "./options.ts"
import { type HostRemoval, makeReset } from "./reset.ts"
import { rpc } from "./rpc.ts"
import { serve } from "./serve.ts"
import { unmap } from "./unmap.ts"
import { watch } from "./watch.ts"

const table: HostRemoval = {
  what: "nftables table inet portmapper",
  claim: Effect.flatMap(
    Effect.promise(() => import("./removeTable.ts")),
    ({ claimTable }) => claimTable
  )
}

const dockerUser: HostRemoval = {
  what: "our rule in DOCKER-USER",
  claim: Effect.sync(() => (isRoot() ? removeAccepted : Effect.succeed(false)))
}

export const portmapper = Command.make("portmapper").pipe(
  Command.withDescription("A Docker Engine port-mapper plugin, and the functions it is made of"),
  Command.withSubcommands([
    serve,
    watch,
    rpc,
    map,
    unmap,
    ls,
    conform,
    cni,
    doctor,
    makeReset([table, dockerUser])
  ])
)
