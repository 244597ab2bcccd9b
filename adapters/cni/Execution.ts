/**
 * One execution of the CNI plugin, from its parameters to what stands on stdout, as far as no port mapper is needed for it:
 * what is wrong with the parameters or the configuration, and `VERSION`. Imports nothing heavy, so that the executable
 * starts fast.
 */
import { CniError, cniErrorOf, codes, errorText } from "./CniError.ts"
import { type Invocation, invocationOf } from "./Environment.ts"
import { configOf, type Json, latestVersion, type NetworkConfig, supportedVersions } from "./NetworkConfig.ts"

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

export type Command = Exclude<Invocation, { readonly command: "VERSION" }>

/** Where the running plugin executes, and the type by which its outcome is told from whatever else answers on a socket. */
export const executePath = "/Cni.Execute"
export const outcomeType = "application/vnd.portmapper.cni+json"

/** What a port mapper has to do; `text` is the configuration as it was read. */
export interface Asked {
  readonly _tag: "Asked"
  readonly invocation: Command
  readonly config: NetworkConfig
  readonly text: string
}

export type Read = { readonly _tag: "Answered"; readonly outcome: Outcome } | Asked

export const read = ({ variables, input }: Execution): Read => {
  let text = ""
  try {
    const invocation = invocationOf(variables)
    text = readInput(input, invocation)
    return invocation.command === "VERSION"
      ? { _tag: "Answered", outcome: succeeded({ cniVersion: versionAsked(text), supportedVersions }) }
      : { _tag: "Asked", invocation, config: configOf(text, invocation.command), text }
  } catch (cause) {
    return { _tag: "Answered", outcome: failed(cniErrorOf(cause), text) }
  }
}

export const succeeded = (result: Json | undefined): Outcome => ({
  status: 0,
  stdout: result === undefined ? "" : `${JSON.stringify(result)}\n`
})

/** An error in the version of the configuration. */
export const failed = (error: CniError, text: string): Outcome => ({
  status: 1,
  stdout: `${errorText(error, versionIn(text))}\n`
})

/** The version that a text asks for, as far as it can be read; for errors, which name one. */
const versionIn = (text: string): string => {
  const version = versionAsked(text)
  return supportedVersions.includes(version) ? version : latestVersion
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
