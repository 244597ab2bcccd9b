/**
 * One execution of the CNI plugin, from its parameters to its stdout, as far as it needs no port mapper: errors in
 * the parameters or the configuration, `VERSION`, and containers without ports. Imports nothing heavy, so that the
 * executable starts fast.
 */
import { jsonOf } from "../node/jsonOf.ts"
import { CniError, cniErrorOf, codes, errorText } from "./CniError.ts"
import { type Attachment, type Invocation, invocationOf } from "./Environment.ts"
import {
  configOf,
  isObject,
  type Json,
  latestVersion,
  type NetworkConfig,
  type Publication,
  publicationOf,
  supportedVersions,
  validAttachments
} from "./NetworkConfig.ts"

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

/** The path where the running plugin executes, and the content type that marks its outcome. */
export const executePath = "/Cni.Execute"
export const outcomeType = "application/vnd.portmapper.cni+json"

/**
 * What a port mapper has to do. `result` is that of the previous plugin in the chain, `answer` the output of `ADD`.
 */
export type Task =
  | (Ports & { readonly command: "ADD"; readonly answer: Json; readonly netns: string })
  | (Ports & { readonly command: "CHECK" })
  | { readonly command: "DEL"; readonly attachment: Attachment }
  | { readonly command: "GC"; readonly network: string; readonly valid: ReadonlyArray<Attachment> }
  | { readonly command: "STATUS" }

export interface Ports {
  readonly attachment: Attachment
  readonly publication: Publication
  readonly result: Json
}

/** `socket` is the port mapper's; `text` is the configuration as read. */
export interface Asked {
  readonly _tag: "Asked"
  readonly task: Task
  readonly socket: string
  readonly text: string
}

export type Read = { readonly _tag: "Answered"; readonly outcome: Outcome } | Asked

export const read = ({ variables, input }: Execution): Read => {
  let text = ""
  try {
    const invocation = invocationOf(variables)
    text = readInput(input, invocation)
    if (invocation.command === "VERSION")
      return answered(succeeded({ cniVersion: versionAsked(text), supportedVersions }))
    const config = configOf(text, invocation.command)
    const task = taskOf(invocation, config)
    // Containers without ports don't need a running port mapper.
    if ("publication" in task && task.publication.mappings.length === 0)
      return answered(succeeded(task.command === "ADD" ? task.answer : undefined))
    return { _tag: "Asked", task, socket: config.socket, text }
  } catch (cause) {
    return answered(failed(cniErrorOf(cause), text))
  }
}

const answered = (outcome: Outcome): Read => ({ _tag: "Answered", outcome })

/** Throws if the configuration lacks what the command needs. */
const taskOf = (
  invocation: Exclude<Invocation, { readonly command: "VERSION" }>,
  config: NetworkConfig
): Task => {
  switch (invocation.command) {
    case "ADD": {
      const ports = portsOf(invocation.attachment, config)
      return {
        command: "ADD",
        ...ports,
        netns: invocation.netns,
        answer: inVersion(config.version, ports.result)
      }
    }
    case "CHECK":
      return { command: "CHECK", ...portsOf(invocation.attachment, config) }
    case "DEL":
      return { command: "DEL", attachment: invocation.attachment }
    case "GC":
      return { command: "GC", network: config.name, valid: validAttachments(config) }
    case "STATUS":
      publicationOf(config)
      return { command: "STATUS" }
  }
}

const portsOf = (attachment: Attachment, config: NetworkConfig): Ports => {
  const publication = publicationOf(config)
  const result = config.raw["prevResult"] ?? undefined
  if (isObject(result)) return { attachment, publication, result }
  throw new CniError(
    codes.config,
    "invalid network configuration",
    "prevResult is missing: this plugin publishes ports of an interface that a plugin before it in the chain has made"
  )
}

/** Unchanged except for its version: it is read in the configuration's version, so it gets that one. */
const inVersion = (cniVersion: string, result: Json): Json =>
  "cniVersion" in result ? { ...result, cniVersion } : { cniVersion, ...result }

export const succeeded = (result: Json | undefined): Outcome => ({
  status: 0,
  stdout: result === undefined ? "" : `${JSON.stringify(result)}\n`
})

/** An error in the configuration's version of the format. */
export const failed = (error: CniError, text: string): Outcome => ({
  status: 1,
  stdout: `${errorText(error, versionIn(text))}\n`
})

/** The version that a text requests, as far as it can be parsed; an error must contain one. */
const versionIn = (text: string): string => {
  const version = versionAsked(text)
  return supportedVersions.includes(version) ? version : latestVersion
}

/** `VERSION` is answered for any input, even an empty one. */
const versionAsked = (text: string): string => {
  const cniVersion = (jsonOf(text) as Json | null | undefined)?.["cniVersion"]
  return typeof cniVersion === "string" && cniVersion !== "" ? cniVersion : latestVersion
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
