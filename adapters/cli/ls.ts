/** `portmapper ls`: what a running plugin has mapped, once or again and again. */
import { Clock, Console, Effect, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { listPortsResponse } from "../../src/protocol/Answers.ts"
import type { PluginClient } from "../docker/PluginClient.ts"
import { answering, clientFlags, clientOf, interruptedIsFailure, wrongUsage } from "./clientFlags.ts"
import { failed } from "./failure.ts"
import { toggle } from "./flags.ts"
import { mappingLines, sorted } from "./mappingTable.ts"
import { printable } from "./Table.ts"

const watchMillis = 1000

const flags = {
  watch: toggle("watch", "Keep showing what changes, every second, until interrupted").pipe(
    Flag.withAlias("w")
  ),
  cluster: toggle("cluster", "List what all hosts of the plugin's cluster have"),
  ...clientFlags
}

export const ls = Command.make("ls", flags, (options) =>
  Effect.gen(function* () {
    if (options.watch && options.json)
      return yield* wrongUsage("ls", "--json prints one document, --watch has no end; give one of them")
    const client = yield* clientOf("ls", options)
    const listing = options.cluster ? client.listCluster : client.listPorts
    if (options.watch) return yield* watch(listing)
    const listed = yield* listing.pipe(
      Effect.mapError(({ message }) => failed("listing failed", message)),
      interruptedIsFailure
    )
    yield* Console.log(
      options.json
        ? JSON.stringify(listPortsResponse(sorted(listed)))
        : mappingLines(listed, yield* Clock.currentTimeMillis, tableWidth()).join("\n")
    )
  }).pipe(answering(options.json), Effect.scoped)
).pipe(
  Command.withDescription("List what is mapped"),
  Command.withExamples([
    { command: "portmapper ls" },
    { command: "portmapper ls --watch" },
    { command: "portmapper ls --cluster", description: "Which host has which port" },
    {
      command: "portmapper ls --json | jq '.Mappings[] | select(.State == \"stale\")'",
      description: "What an Engine left behind"
    }
  ])
)

/** Without a terminal the width is unlimited, so that no script loses a column. */
const tableWidth = (): number => (process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY)

/** If the plugin is away for a while, as during a restart, reports that and waits for it. */
const watch = (listing: PluginClient["listPorts"]) =>
  Effect.gen(function* () {
    const show = yield* process.stdout.isTTY ? screen : scroll
    for (;;) {
      const listed = yield* Effect.result(listing)
      if (Result.isFailure(listed) && listed.failure._tag === "NotOffered")
        return yield* failed("listing failed", listed.failure.message)
      const now = yield* Clock.currentTimeMillis
      yield* Result.isSuccess(listed)
        ? show(
            mappingLines(listed.success, now, tableWidth()),
            JSON.stringify(listPortsResponse(listed.success))
          )
        : show([printable(`listing failed: ${listed.failure.message}`)], listed.failure.message)
      yield* Effect.sleep(watchMillis)
    }
  })

/** Redraws on the terminal's alternate screen, which leaves no trace. */
const screen = Effect.acquireRelease(
  Effect.sync(() => {
    process.stdout.write("\u001b[?1049h\u001b[?25l")
    let shown: ReadonlyArray<string> = []
    const draw = () => {
      const { rows } = process.stdout
      const cut =
        shown.length > rows ? [...shown.slice(0, rows - 1), `… ${shown.length - rows + 1} more lines`] : shown
      process.stdout.write(`\u001b[H${cut.map((line) => `${line}\u001b[K`).join("\n")}\u001b[J`)
    }
    process.stdout.on("resize", draw)
    return (lines: ReadonlyArray<string>, _: string) =>
      Effect.sync(() => {
        shown = lines
        draw()
      })
  }),
  () => Effect.sync(() => void process.stdout.write("\u001b[?25h\u001b[?1049l"))
)

/** Without a terminal, prints a table whenever `state` changes: the ages in the text change all the time. */
const scroll = Effect.sync(() => {
  let before: string | undefined
  return (lines: ReadonlyArray<string>, state: string) => {
    if (state === before) return Effect.void
    const text = `${before === undefined ? "" : "\n"}${lines.join("\n")}`
    before = state
    return Console.log(text)
  }
})
