/** `portmapper conform`: checks any port-mapper plugin against the protocol, as a black box. */
import * as Fs from "node:fs"
import { Console, Effect, Option, Result } from "effect"
import { Command, Flag } from "effect/cli"
import type { Checked } from "../../src/testing/conformance/Conform.ts"
import { httpWire } from "../docker/HttpWire.ts"
import { parsePluginUrl, socketAddress } from "../docker/PluginAddress.ts"
import { answering, interruptedIsFailure } from "./clientFlags.ts"
import { failed, WrongUsage } from "./failure.ts"
import { optionalText, parsed } from "./flags.ts"

const flags = {
  socket: optionalText("socket", "PATH", "The Unix socket of the plugin"),
  url: parsed("url", "URL", "Where the plugin is served instead: http://, https:// or tcp://", (text) =>
    parsePluginUrl(text, false)
  ).pipe(Flag.optional),
  json: Flag.Boolean("json").pipe(Flag.withDescription("Print one JSON document"), Flag.withDefault(false)),
  junit: optionalText("junit", "FILE", "Write the result as JUnit XML besides"),
  seed: Flag.Int("seed").pipe(
    Flag.withMetavar("N"),
    Flag.withDescription("Which ports and which random calls; the same ones for the same seed"),
    Flag.withDefault(1)
  ),
  runs: parsed("runs", "N", "How many runs of random calls follow the checks", (text) =>
    /^\d{1,9}$/.test(text) ? Result.succeed(Number(text)) : Result.fail("expected a number, 0 or more")
  ).pipe(Flag.withDefault(20)),
  activate: Flag.Boolean("activate").pipe(
    Flag.withDescription("Send Plugin.Activate too, which a live plugin takes for an Engine's start"),
    Flag.withDefault(false)
  )
}

export const conform = Command.make("conform", flags, ({ socket, url, json, junit, ...options }) =>
  Effect.gen(function* () {
    if (Option.isSome(socket) === Option.isSome(url))
      return yield* new WrongUsage({ message: "conform: give either --socket PATH or --url URL" })
    // Loaded only here: no other command needs it, and all of them load this file.
    const {
      checkedText,
      conform: conformPlugin,
      conformanceJunit,
      conformanceSummary
    } = yield* Effect.promise(() => import("../../src/testing/index.ts"))
    const address = Option.isSome(socket) ? socketAddress(socket.value) : Option.getOrThrow(url)
    // A plugin may be slow: each check is reported as it ends.
    const onChecked = json ? () => Effect.void : (checked: Checked) => Console.log(checkedText(checked))
    // Reports a file that can't be written before the checks, not after.
    if (Option.isSome(junit)) yield* write(junit.value, "")
    const result = yield* conformPlugin(httpWire(address), { ...options, onChecked }).pipe(
      Effect.mapError((error) =>
        failed(`conform: asking the plugin at ${address.text} failed`, error.message)
      ),
      answering(json)
    )
    yield* Console.log(json ? JSON.stringify(result, undefined, 2) : conformanceSummary(result))
    if (Option.isSome(junit)) yield* write(junit.value, conformanceJunit(result))
    if (!result.conforms) {
      const broken = result.checked.filter(({ required, standing }) => required && standing === "broken")
      return yield* failed("conform", `broken: ${broken.map(({ id }) => id).join(", ")}`)
    }
  }).pipe(interruptedIsFailure)
).pipe(Command.withDescription("Check any port-mapper plugin against the protocol"))

const write = (path: string, text: string) =>
  Effect.try({
    try: () => Fs.writeFileSync(path, text),
    catch: (error) =>
      failed(`conform: writing ${path} failed`, error instanceof Error ? error.message : String(error))
  })
