/** `portmapper doctor`: what this host can do, and what to do about what it can't. */
import { Console, type Duration, Effect, Option } from "effect"
import { Command } from "effect/cli"
import type { Check } from "../doctor/HostChecks.ts"
import { parseEngine } from "../engine/EngineAddress.ts"
import { type ClientFlags, clientFlags, clientOf, interruptedIsFailure } from "./clientFlags.ts"
import { type Connection, clusterTtl, connectionFlags, connectionOf, defaultTtl } from "./clusterFlags.ts"
import { engine, isEngineNamed } from "./engineFlags.ts"
import { failed } from "./failure.ts"
import { haveVariables, settings } from "./settings.ts"
import { printable } from "./Table.ts"

const clusterFlags = { ...connectionFlags, clusterTtl }

export const doctor = Command.make(
  "doctor",
  { ...clientFlags, engine, ...settings(clusterFlags) },
  (options) =>
    Effect.gen(function* () {
      const cluster = yield* Effect.fromResult(connectionOf(options))
      // Loaded only here, so that the other commands start faster.
      const { checkEngineFilter, hostChecks } = yield* Effect.promise(() => import("../doctor/HostChecks.ts"))
      const { checkEngine } = yield* Effect.promise(() => import("../doctor/EngineCheck.ts"))
      const { droppedTraffic } = yield* Effect.promise(() => import("../doctor/DroppedTraffic.ts"))
      const { checkServices } = yield* Effect.promise(() => import("../doctor/ServiceCheck.ts"))
      const listed = yield* mapped(options)
      const { drops, checks: dropChecks } = droppedTraffic(listed)
      const checks = [
        ...hostChecks(),
        // A wrong DOCKER_HOST is a finding.
        yield* checkEngine(
          parseEngine(Option.getOrUndefined(options.engine), process.env),
          isEngineNamed(options)
        ),
        yield* Effect.promise(checkEngineFilter),
        ...(cluster === undefined ? [] : yield* clusterChecks(cluster, options.clusterTtl)),
        ...dropChecks,
        ...checkServices(listed)
      ]
      yield* Console.log(
        options.json ? JSON.stringify({ checks, drops }, undefined, 2) : checks.map(checkText).join("\n")
      )
      const failing = checks.filter(({ status }) => status === "fail").map(({ name }) => name)
      if (failing.length > 0) return yield* failed("doctor", `this host lacks ${failing.join(", ")}`)
    }).pipe(Effect.scoped, interruptedIsFailure)
).pipe(
  Command.withDescription("Check what this host can do, with a remedy for what it can't"),
  haveVariables(clusterFlags)
)

const clusterChecks = Effect.fnUntraced(function* (
  { etcd }: Connection,
  ttl: Option.Option<Duration.Duration>
) {
  const { checkCluster } = yield* Effect.promise(() => import("../doctor/ClusterCheck.ts"))
  return yield* checkCluster(
    etcd,
    Option.getOrElse(ttl, () => defaultTtl)
  )
})

/** What a running plugin has mapped; nothing if none answers, since users run `doctor` when things don't work. */
const mapped = (options: ClientFlags) =>
  Effect.flatMap(clientOf("doctor", options), ({ listPorts }) => Effect.orElseSucceed(listPorts, () => []))

const checkText = ({ name, status, found, remedy }: Check): string =>
  [
    `${status.padEnd(5)}${name.padEnd(17)}${printable(found)}`,
    ...(remedy === undefined ? [] : [`${" ".repeat(22)}-> ${printable(remedy)}`])
  ].join("\n")
