/** Whether a Docker Engine is reachable at the address that `watch` and `serve` would use. */
import { Effect, Result } from "effect"
import { Engine, type EngineError } from "../engine/Engine.ts"
import type { EngineAddress } from "../engine/EngineAddress.ts"
import * as EngineHttp from "../engine/EngineHttp.ts"
import { type Check, ok, warn } from "./HostChecks.ts"

/** `isNamed`: the user named an Engine, so it should be there. */
export const checkEngine = (
  address: Result.Result<EngineAddress, string>,
  isNamed: boolean
): Effect.Effect<Check> => {
  if (Result.isFailure(address))
    return Effect.succeed(warn("Engine", address.failure, "set --engine, or correct DOCKER_HOST"))
  return Engine.use(({ where, info }) =>
    Effect.map(info, ({ version }) => ok("Engine", `version ${version} at ${where}`))
  ).pipe(
    Effect.provide(EngineHttp.layer(address.success, { timeoutMillis: 2_000 })),
    Effect.catch((error) => Effect.succeed(notThere(error, isNamed, address.success)))
  )
}

const notThere = (error: EngineError, isNamed: boolean, { tls }: EngineAddress): Check => {
  switch (error.reason) {
    case "Unreachable":
      return isNamed
        ? warn(
            "Engine",
            error.message,
            "start it, or correct --engine or DOCKER_HOST; watch and --watch wait for it"
          )
        : ok("Engine", "none running here, and none is needed")
    case "Denied":
      return warn(
        "Engine",
        error.message,
        tls === undefined ? "join the group docker, or run as root" : "correct DOCKER_CERT_PATH"
      )
    default:
      return warn("Engine", error.message, "look at the Engine's log")
  }
}
