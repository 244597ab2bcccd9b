/** `portmapper doctor`: what this host can do, and what to do about what it can't. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import type { Check } from "../linux/HostChecks.ts"
import { failed } from "./failure.ts"

const flags = {
  json: Flag.Boolean("json").pipe(Flag.withDescription("Print one JSON document"), Flag.withDefault(false))
}

export const doctor = Command.make("doctor", flags, ({ json }) =>
  Effect.gen(function* () {
    // Loaded here: the other commands start the sooner.
    const { hostChecks } = yield* Effect.promise(() => import("../linux/HostChecks.ts"))
    const checks = yield* Effect.promise(hostChecks)
    yield* Console.log(json ? JSON.stringify({ checks }, undefined, 2) : checks.map(checkText).join("\n"))
    const failing = checks.filter(({ status }) => status === "fail").map(({ name }) => name)
    if (failing.length > 0) return yield* failed("doctor", `this host lacks ${failing.join(", ")}`)
  })
).pipe(Command.withDescription("Check what this host can do, with a remedy for what it can't"))

const checkText = ({ name, status, found, remedy }: Check): string =>
  [
    `${status.padEnd(5)}${name.padEnd(17)}${found}`,
    ...(remedy === undefined ? [] : [`${" ".repeat(22)}-> ${remedy}`])
  ].join("\n")
