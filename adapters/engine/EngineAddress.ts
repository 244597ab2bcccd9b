/**
 * The Engine's address, from `--engine` or from the environment as Docker's own clients read it.
 *
 * Source: moby/client/client.go and options.go (`FromEnv`): DOCKER_HOST, DOCKER_CERT_PATH, DOCKER_TLS_VERIFY;
 * docker/cli cli/flags/options.go: if only DOCKER_TLS_VERIFY is set, the files are in DOCKER_CONFIG or ~/.docker.
 */
import * as Os from "node:os"
import * as Path from "node:path"
import { Result } from "effect"
import { type PluginAddress, parsePluginUrl } from "../docker/PluginAddress.ts"

export interface EngineAddress {
  readonly address: PluginAddress
  /** PEM files, if TLS is used. */
  readonly tls: EngineTls | undefined
}

export interface EngineTls {
  readonly ca: string
  readonly cert: string
  readonly key: string
  /** Without DOCKER_TLS_VERIFY any server may claim to be the Engine, as with Docker's own clients. */
  readonly verify: boolean
}

export const defaultEngine = "unix:///var/run/docker.sock"

type Environment = Readonly<Record<string, string | undefined>>

/** Whether the user named an Engine. */
export const namesEngine = (url: string | undefined, env: Environment): boolean =>
  url !== undefined || (env["DOCKER_HOST"] ?? "") !== ""

/** `url` is `--engine`. The failure quotes the invalid text in full. */
export const parseEngine = (
  url: string | undefined,
  env: Environment
): Result.Result<EngineAddress, string> => {
  const fromEnvironment = env["DOCKER_HOST"] || undefined
  const text = url ?? fromEnvironment ?? defaultEngine
  const name = url === undefined && fromEnvironment !== undefined ? "DOCKER_HOST" : "--engine"
  return Result.mapError(parseEngineUrl(text, env), (rule) => `${name} "${text}": ${rule}`)
}

/** The failure is a clause that messages put after the URL. */
export const parseEngineUrl = (text: string, env: Environment): Result.Result<EngineAddress, string> => {
  if (text.startsWith("ssh://"))
    return Result.fail("ssh:// is not supported; forward the socket by ssh -L and give its unix:// URL")
  const folder = certificateFolder(env)
  const secure = /^https:/.test(text) || (/^tcp:/.test(text) && folder !== undefined)
  const parsed = parsePluginUrl(text.replace(/\/$/, ""), secure)
  if (Result.isFailure(parsed)) return Result.fail(parsed.failure)
  const tls =
    secure && folder !== undefined
      ? {
          ca: Path.join(folder, "ca.pem"),
          cert: Path.join(folder, "cert.pem"),
          key: Path.join(folder, "key.pem"),
          verify: asksToVerify(env)
        }
      : undefined
  return Result.succeed({ address: parsed.success, tls })
}

const asksToVerify = (env: Environment): boolean => (env["DOCKER_TLS_VERIFY"] ?? "") !== ""

const certificateFolder = (env: Environment): string | undefined =>
  env["DOCKER_CERT_PATH"] ||
  (asksToVerify(env) ? env["DOCKER_CONFIG"] || Path.join(Os.homedir(), ".docker") : undefined)
