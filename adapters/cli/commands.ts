/** The command line as a whole: every command, run once, its end told as an exit status. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit } from "effect"
import { Command } from "effect/cli"
import manifest from "../../package.json" with { type: "json" }
import { conform } from "./conform.ts"
import { doctor } from "./doctor.ts"
import { reportFailure } from "./failure.ts"
import { serve } from "./serve.ts"

const portmapper = Command.make("portmapper").pipe(
  Command.withDescription("A Docker Engine port-mapper plugin, and the functions it is made of"),
  Command.withSubcommands([serve, conform, doctor])
)

Command.run(portmapper, { version: manifest.version }).pipe(
  Effect.tapCause(reportFailure),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) =>
      onExit(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : Number(process.exitCode ?? 1))
  })
)
