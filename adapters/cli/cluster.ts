/** `portmapper cluster release`: gives the ports of a host that never comes back to the others. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { interruptedIsFailure } from "./clientFlags.ts"
import { connectionFlags, connectionOf } from "./clusterFlags.ts"
import { confirm, yes } from "./confirm.ts"
import { failed, WrongUsage } from "./failure.ts"
import { haveVariables, settings } from "./settings.ts"

const flags = {
  host: Flag.String("host").pipe(
    Flag.withMetavar("NAME"),
    Flag.withDescription("The host, as ls --cluster names it")
  ),
  yes,
  ...settings(connectionFlags)
}

const release = Command.make("release", flags, (options) =>
  Effect.gen(function* () {
    const connection = yield* Effect.fromResult(connectionOf(options))
    if (connection === undefined)
      return yield* new WrongUsage({ message: "cluster release: name the cluster's etcd by --cluster URL" })
    const { host } = options
    yield* confirm("cluster release", options.yes, {
      question: `This ends all claims of host ${host}: others may get its ports. If it still runs, it serves them until it notices, for a moment.\nRelease it?`,
      refusal: "nothing was released"
    })
    // Loaded only here, so that the other commands start faster.
    const { expelHost } = yield* Effect.promise(() => import("./expelHost.ts"))
    const isThere = yield* Effect.mapError(expelHost(connection, host), ({ message }) =>
      failed(`releasing host ${host}`, message)
    )
    if (!isThere)
      return yield* failed(`releasing host ${host}`, `cluster ${connection.name} has no such host`)
    yield* Console.log(`released host ${host}`)
  }).pipe(Effect.scoped, interruptedIsFailure)
).pipe(
  Command.withDescription("Give the ports of a host that never comes back to the others"),
  Command.withExamples([{ command: "portmapper cluster release --cluster http://127.0.0.1:2379 --host b" }]),
  haveVariables(connectionFlags)
)

export const cluster = Command.make("cluster").pipe(
  Command.withDescription("What concerns all hosts of a cluster"),
  Command.withSubcommands([release])
)
