/** `portmapper drain` and `undrain`: a backend gets no new connections, or gets them again. */
import { Console, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import type { PortBinding } from "../../src/protocol/PortBinding.ts"
import { parseUnpublish, unpublishForm } from "../../src/protocol/PublishSyntax.ts"
import {
  answering,
  bindingJson,
  clientFlags,
  clientOf,
  interruptedIsFailure,
  wrongUsage
} from "./clientFlags.ts"
import { failed } from "./failure.ts"
import { parsed } from "./flags.ts"
import { portLines } from "./portRuns.ts"
import { printable } from "./Table.ts"

const parameters = {
  backend: Argument.String("NAME|ADDRESS").pipe(
    Argument.withDescription("A container's name or id, or the address of a backend")
  ),
  publish: parsed(
    "publish",
    unpublishForm,
    "Only where this host port leads to it; again for more",
    parseUnpublish
  ).pipe(Flag.withAlias("p"), Flag.atLeast(0)),
  ...clientFlags
}

const command = (name: "drain" | "undrain") =>
  Command.make(name, parameters, ({ backend, publish: ports, ...options }) =>
    Effect.gen(function* () {
      if (backend === "") return yield* wrongUsage(name, "name a container or an address")
      const client = yield* clientOf(name, options)
      const bindings = yield* Effect.mapError(
        client.drain({ backend, ports, drained: name === "drain" }),
        ({ message }) => failed(`${name}ing ${backend} failed`, message)
      )
      yield* Console.log(options.json ? jsonOf(bindings) : linesOf(name, backend, bindings).join("\n"))
    }).pipe(answering(options.json), interruptedIsFailure, Effect.scoped)
  )

export const drain = command("drain").pipe(
  Command.withDescription("Lead no new connections to a backend; what is established goes on"),
  Command.withExamples([
    { command: "portmapper drain web-1", description: "Before `docker stop web-1`; by its name or id" },
    { command: "portmapper drain 172.17.0.2 -p 8080", description: "Where port 8080 leads to this address" }
  ])
)

export const undrain = command("undrain").pipe(
  Command.withDescription("Lead new connections to a drained backend again"),
  Command.withExamples([{ command: "portmapper undrain web-1" }])
)

const linesOf = (
  name: "drain" | "undrain",
  backend: string,
  bindings: ReadonlyArray<PortBinding>
): ReadonlyArray<string> =>
  portLines(bindings.map(({ entry, port }) => ({ ...entry, port, container: backend }))).map(
    (line) => `${name}ed ${printable(line)}`
  )

const jsonOf = (bindings: ReadonlyArray<PortBinding>): string =>
  JSON.stringify({ Mappings: bindings.map(({ entry, port }) => bindingJson({ ...entry, port })) })
