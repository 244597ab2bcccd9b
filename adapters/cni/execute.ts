/** One execution, from its parameters to what stands on stdout, whoever does the work. */
import type { WithCaller } from "./Caller.ts"
import { CniError, cniErrorOf, codes, errorText } from "./CniError.ts"
import * as Commands from "./commands.ts"
import { type Attachment, type Invocation, invocationOf } from "./Environment.ts"
import {
  configOf,
  isObject,
  type Json,
  latestVersion,
  type NetworkConfig,
  publicationOf,
  supportedVersions,
  validAttachments,
  versionIn
} from "./NetworkConfig.ts"
import { containerAddresses, groupsOf } from "./PortMappings.ts"

export interface Execution {
  readonly variables: Readonly<Record<string, string | undefined>>
  /** Reads all of stdin; may throw. */
  readonly input: () => string
}

export interface Outcome {
  readonly status: 0 | 1
  /** One JSON document, or nothing. */
  readonly stdout: string
}

export const execute = async ({ variables, input }: Execution, withCaller: WithCaller): Promise<Outcome> => {
  let text = ""
  try {
    const invocation = invocationOf(variables)
    text = readInput(input, invocation)
    const result = await run(invocation, text, withCaller)
    return { status: 0, stdout: result === undefined ? "" : `${JSON.stringify(result)}\n` }
  } catch (cause) {
    return { status: 1, stdout: `${errorText(cniErrorOf(cause), versionIn(text))}\n` }
  }
}

const run = async (
  invocation: Invocation,
  text: string,
  withCaller: WithCaller
): Promise<Json | undefined> => {
  if (invocation.command === "VERSION") return { cniVersion: versionAsked(text), supportedVersions }
  const config = configOf(text, invocation.command)
  switch (invocation.command) {
    case "ADD":
      return add(config, invocation.attachment, withCaller)
    case "CHECK":
      return check(config, invocation.attachment, withCaller)
    case "DEL":
      return withCaller(config, "recorded", (caller) => Commands.del(caller, invocation.attachment))
    case "GC": {
      const valid = validAttachments(config)
      return withCaller(config, "recorded", (caller) => Commands.gc(caller, config.name, valid))
    }
    case "STATUS":
      return status(config, withCaller)
  }
}

const add = async (config: NetworkConfig, attachment: Attachment, withCaller: WithCaller): Promise<Json> => {
  const { labels, mappings } = publicationOf(config)
  const result = previousResult(config)
  // Unchanged but for its version, which is the configuration's whatever it says: so it is read, too.
  const { version: cniVersion } = config
  const answer = "cniVersion" in result ? { ...result, cniVersion } : { cniVersion, ...result }
  if (mappings.length === 0) return answer
  const groups = groupsOf(mappings, containerAddresses(result, attachment))
  await withCaller(config, "always", (caller) => Commands.add(caller, attachment, groups, labels))
  return answer
}

const check = async (
  config: NetworkConfig,
  attachment: Attachment,
  withCaller: WithCaller
): Promise<undefined> => {
  const { mappings } = publicationOf(config)
  const result = previousResult(config)
  if (mappings.length === 0) return
  const groups = groupsOf(mappings, containerAddresses(result, attachment))
  await withCaller(config, "always", (caller) => Commands.check(caller, attachment, groups))
}

const status = async (config: NetworkConfig, withCaller: WithCaller): Promise<undefined> => {
  publicationOf(config)
  try {
    await withCaller(config, "always", Commands.status)
  } catch (cause) {
    const { details, message } = cniErrorOf(cause)
    throw new CniError(codes.unavailable, message, details)
  }
}

const previousResult = ({ raw }: NetworkConfig): Json => {
  const result = raw["prevResult"] ?? undefined
  if (isObject(result)) return result
  throw new CniError(
    codes.config,
    "invalid network configuration",
    "prevResult is missing: this plugin publishes ports of an interface that a plugin before it in the chain has made"
  )
}

/** `VERSION` is answered whatever is asked, even nothing. */
const versionAsked = (text: string): string => {
  try {
    const { cniVersion } = JSON.parse(text) as Json
    return typeof cniVersion === "string" && cniVersion !== "" ? cniVersion : latestVersion
  } catch {
    return latestVersion
  }
}

const readInput = (input: () => string, { command }: Invocation): string => {
  try {
    return input()
  } catch (cause) {
    if (command === "VERSION") return ""
    throw new CniError(
      codes.io,
      "reading the network configuration from stdin failed",
      cause instanceof Error ? cause.message : String(cause)
    )
  }
}
