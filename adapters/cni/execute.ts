/**
 * One execution, from its parameters to what stands on stdout. Imports nothing heavy: a running plugin is asked over its
 * socket, and only where none answers is the mapper loaded into this process.
 */
import { type Caller, refusal } from "./Caller.ts"
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
import { connect } from "./SocketCaller.ts"
import type { Opened } from "./Standalone.ts"

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

export const execute = async ({ variables, input }: Execution): Promise<Outcome> => {
  let text = ""
  try {
    const invocation = invocationOf(variables)
    text = readInput(input, invocation)
    const result = await run(invocation, text)
    return { status: 0, stdout: result === undefined ? "" : `${JSON.stringify(result)}\n` }
  } catch (cause) {
    return { status: 1, stdout: `${errorText(cniErrorOf(cause), versionIn(text))}\n` }
  }
}

const run = async (invocation: Invocation, text: string): Promise<Json | undefined> => {
  if (invocation.command === "VERSION") return { cniVersion: versionAsked(text), supportedVersions }
  const config = configOf(text, invocation.command)
  switch (invocation.command) {
    case "ADD":
      return add(config, invocation.attachment)
    case "CHECK":
      return check(config, invocation.attachment)
    case "DEL":
      return withCaller(config, "recorded", (caller) => Commands.del(caller, invocation.attachment))
    case "GC": {
      const valid = validAttachments(config)
      return withCaller(config, "recorded", (caller) => Commands.gc(caller, config.name, valid))
    }
    case "STATUS":
      return status(config)
  }
}

const add = async (config: NetworkConfig, attachment: Attachment): Promise<Json> => {
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

const check = async (config: NetworkConfig, attachment: Attachment): Promise<undefined> => {
  const { mappings } = publicationOf(config)
  const result = previousResult(config)
  if (mappings.length === 0) return
  const groups = groupsOf(mappings, containerAddresses(result, attachment))
  await withCaller(config, "always", (caller) => Commands.check(caller, attachment, groups))
}

const status = async (config: NetworkConfig): Promise<undefined> => {
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

/** How long another process may have the state before this one gives up. */
const patienceMillis = 20_000

/** How long one attempt waits for the state; then a plugin may have come up that is to be asked instead. */
const attemptMillis = 1_000

/**
 * Works with the running plugin, or without one. `recorded`: where nothing is recorded either there is nothing to work on,
 * and nothing is loaded.
 */
const withCaller = async (
  config: NetworkConfig,
  when: "always" | "recorded",
  work: (caller: Caller) => Promise<void>
): Promise<undefined> => {
  const deadline = Date.now() + patienceMillis
  while (true) {
    const caller = await connect(config.socket)
    if (caller !== undefined) return finish(caller, work)
    if (when === "recorded" && !hasRecord(config.state)) return
    const { openStandalone } = await import("./Standalone.ts")
    const alone = await openStandalone(config.state, attemptMillis)
    if (alone._tag === "Open") return finish(aloneCaller(alone), work, config)
    if (alone._tag === "Failed") throw new CniError(codes.refused, alone.why, nobodyServes(config))
    if (Date.now() >= deadline)
      throw new CniError(
        codes.tryAgain,
        alone.why,
        `${nobodyServes(config)}; if a portmapper serves another socket, name it by the key socket`
      )
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const aloneCaller = ({ call, close }: Extract<Opened, { readonly _tag: "Open" }>): Caller => ({
  call: async (method, request, owner) => {
    const answered = await call(method, request, owner)
    if (answered._tag === "Answer") return answered.value
    throw refusal(answered.kind, answered.message)
  },
  close
})

const nobodyServes = ({ socket }: NetworkConfig): string => `no portmapper serves ${socket}`

const finish = async (
  caller: Caller,
  work: (caller: Caller) => Promise<void>,
  alone?: NetworkConfig
): Promise<undefined> => {
  try {
    await work(caller)
  } catch (cause) {
    if (alone === undefined || !(cause instanceof CniError) || cause.code !== codes.refused) throw cause
    const without = `${nobodyServes(alone)}, and without one only what the kernel redirects can be published`
    throw new CniError(
      cause.code,
      cause.message,
      [cause.details, without].filter((part) => part !== "").join("; ")
    )
  } finally {
    await caller.close()
  }
}

const hasRecord = (state: string): boolean =>
  process.getBuiltinModule("node:fs").existsSync(`${state}/mappings.db`)

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
