/** The tree of commands, the source of help, completions and manual pages. */
import { Command } from "effect/cli"
import { cluster } from "./cluster.ts"
import { cni } from "./cni.ts"
import { conform } from "./conform.ts"
import { doctor } from "./doctor.ts"
import { drain, undrain } from "./drain.ts"
import { ls } from "./ls.ts"
import { map } from "./map.ts"
import { reset } from "./reset.ts"
import { rpc } from "./rpc.ts"
import { serve } from "./serve.ts"
import { unmap } from "./unmap.ts"
import { watch } from "./watch.ts"

export const portmapper = Command.make("portmapper").pipe(
  Command.withDescription("A Docker Engine port-mapper plugin, and the functions it is made of"),
  Command.withSubcommands([
    serve,
    watch,
    rpc,
    map,
    unmap,
    drain,
    undrain,
    ls,
    conform,
    cni,
    cluster,
    doctor,
    reset
  ])
)
