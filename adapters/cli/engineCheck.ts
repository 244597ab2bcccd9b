/** Whether a Docker Engine is there to be watched and asked, where `watch` and `serve` would look for it. */
import { Effect, Option, Result } from "effect"
import { Engine, type EngineError } from "../engine/Engine.ts"
import { type EngineAddress, parseEngine } from "../engine/EngineAddress.ts"
import * as EngineHttp from "../engine/EngineHttp.ts"
import { type Check, ok, warn } from "../linux/HostChecks.ts"
import { isEngineNamed } from "./engineFlags.ts"
import { WrongUsage } from "./failure.ts"

type Flags = Parameters<typeof isEngineNamed>[0]

/** Wrong usage is what is wrong with `--engine`; what is wrong with the environment is a finding. */
export const checkEngine = (options: Flags): Effect.Effect<Check, WrongUsage> =>
  Effect.suspend(() => {
    const address = parseEngine(Option.getOrUndefined(options.engine), process.env)
    if (Result.isFailure(address))
      return Option.isSome(options.engine)
        ? Effect.fail(new WrongUsage({ message: address.failure }))
        : Effect.succeed(warn("Engine", address.failure, "name it by --engine, or mend DOCKER_HOST"))
    return Effect.flatMap(Engine, ({ where, info }) =>
      Effect.map(info, ({ version }) => ok("Engine", `version ${version} at ${where}`))
    ).pipe(
      Effect.provide(EngineHttp.layer(address.success, { timeoutMillis: 2_000 })),
      Effect.catch((error) => Effect.succeed(notThere(error, isEngineNamed(options), address.success)))
    )
  })

const notThere = (error: EngineError, isNamed: boolean, { tls }: EngineAddress): Check => {
  switch (error.reason) {
    case "Unreachable":
      return isNamed
        ? warn(
            "Engine",
            error.message,
            "start it, or mend --engine or DOCKER_HOST; watch and --watch wait for it"
          )
        : ok("Engine", "none running here, and none is needed")
    case "Denied":
      return warn(
        "Engine",
        error.message,
        tls === undefined ? "join the group docker, or run as root" : "mend DOCKER_CERT_PATH"
      )
    default:
      return warn("Engine", error.message, "look at the Engine's log")
  }
}
