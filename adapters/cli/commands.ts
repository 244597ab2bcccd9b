/** The whole command line: runs the tree of commands once and sets the exit status. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Effect, Exit, Layer } from "effect"
import { CliConfig, CliOutput, Command } from "effect/cli"
import manifest from "../../package.json" with { type: "json" }
import { builtIns } from "./completions.ts"
import { reportFailure } from "./failure.ts"
import { presenter } from "./presenter.ts"
import { portmapper } from "./tree.ts"

const settings = Layer.mergeAll(CliConfig.layer({ builtIns }), CliOutput.layerPresenter(presenter))

/** `-p8080:80` as Docker takes it; the parser knows only `-p 8080:80` and `-p=8080:80`. */
const separated = (args: ReadonlyArray<string>): ReadonlyArray<string> => {
  const end = args.indexOf("--")
  return args.flatMap((arg, index) =>
    /^-p[\d[:]/.test(arg) && (end === -1 || index < end) ? ["-p", arg.slice(2)] : [arg]
  )
}

/** If the reader closes the pipe, as `head` does, the command exits with SIGPIPE's status, as other programs do. */
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  process.exit(141)
})

Command.runWith(portmapper, { version: manifest.version })(separated(process.argv.slice(2))).pipe(
  Effect.tapCause(reportFailure),
  Effect.provide(Layer.merge(settings, NodeServices.layer)),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) => {
      const fine = Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)
      onExit(Number(process.exitCode ?? (fine ? 0 : 1)))
    }
  })
)
