/** The options that select the Engine and what to publish from it, and their rules of usage. */
import { Effect, Option, Result } from "effect"
import { Flag } from "effect/cli"
import { type EngineAddress, namesEngine, parseEngine, parseEngineUrl } from "../engine/EngineAddress.ts"
import { WrongUsage } from "./failure.ts"
import { type Given, parsed, toggle } from "./flags.ts"

export const engine = parsed(
  "engine",
  "URL",
  "The Engine's API: unix:///PATH, tcp://HOST:PORT or https://HOST:PORT (DOCKER_HOST, else unix:///var/run/docker.sock; TLS by DOCKER_CERT_PATH and DOCKER_TLS_VERIFY)",
  (text) => Result.map(parseEngineUrl(text, process.env), () => text)
).pipe(Flag.optional)

export const engineFlags = {
  engine,
  trustImageLabels: toggle(
    "trust-image-labels",
    "Publish what an image's own labels request, too: the image's author then opens ports here"
  )
}

type EngineFlags = Pick<Given<typeof engineFlags>, "engine">

export const engineOf = (options: EngineFlags): Effect.Effect<EngineAddress, WrongUsage> =>
  Effect.fromResult(
    Result.mapError(
      parseEngine(Option.getOrUndefined(options.engine), process.env),
      (message) => new WrongUsage({ message })
    )
  )

/** Whether the options or the environment name an Engine. */
export const isEngineNamed = ({ engine }: EngineFlags): boolean =>
  namesEngine(Option.getOrUndefined(engine), process.env)
