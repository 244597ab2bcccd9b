/** One execution in the plugin's process: what `Execution` leaves to a port mapper is done by this process's operations. */
import { Effect, type Scope } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { CniError, cniErrorOf, codes } from "./CniError.ts"
import * as Commands from "./commands.ts"
import type { Attachment } from "./Environment.ts"
import { type Command, type Execution, failed, type Outcome, read, succeeded } from "./Execution.ts"
import { isObject, type Json, type NetworkConfig, publicationOf, validAttachments } from "./NetworkConfig.ts"
import { containerAddresses, groupsOf } from "./PortMappings.ts"

/** The scope is the delivery of the outcome: what is published by one that is never delivered is taken back. */
export const execute = (execution: Execution): Effect.Effect<Outcome, never, Driver | Scope.Scope> => {
  const asked = read(execution)
  if (asked._tag === "Answered") return Effect.succeed(asked.outcome)
  const { config, invocation, text } = asked
  return run(config, invocation).pipe(
    Effect.catchDefect((defect) => Effect.fail(cniErrorOf(defect))),
    Effect.match({ onFailure: (error) => failed(error, text), onSuccess: succeeded })
  )
}

const run = (
  config: NetworkConfig,
  invocation: Command
): Effect.Effect<Json | undefined, CniError, Driver | Scope.Scope> => {
  switch (invocation.command) {
    case "ADD":
      return add(config, invocation.attachment)
    case "CHECK":
      return check(config, invocation.attachment)
    case "DEL":
      return Commands.del(invocation.attachment)
    case "GC":
      return Effect.flatMap(
        parsed(() => validAttachments(config)),
        (valid) => Commands.gc(config.name, valid)
      )
    case "STATUS":
      // That this process runs, and takes the configuration, is all there is to know.
      return Effect.as(
        parsed(() => publicationOf(config)),
        undefined
      )
  }
}

const add = Effect.fnUntraced(function* (
  config: NetworkConfig,
  attachment: Attachment
): Effect.fn.Return<Json, CniError, Driver | Scope.Scope> {
  const { groups, labels, result } = yield* parsed(() => askedFor(config, attachment))
  if (groups.length > 0) yield* Commands.add(attachment, groups, labels)
  // Unchanged but for its version, which is the configuration's whatever it says: so it is read, too.
  const { version: cniVersion } = config
  return "cniVersion" in result ? { ...result, cniVersion } : { cniVersion, ...result }
})

const check = Effect.fnUntraced(function* (
  config: NetworkConfig,
  attachment: Attachment
): Effect.fn.Return<undefined, CniError, Driver | Scope.Scope> {
  const { groups } = yield* parsed(() => askedFor(config, attachment))
  if (groups.length > 0) yield* Commands.check(attachment, groups)
})

const askedFor = (config: NetworkConfig, attachment: Attachment) => {
  const { labels, mappings } = publicationOf(config)
  const result = previousResult(config)
  const groups = mappings.length === 0 ? [] : groupsOf(mappings, containerAddresses(result, attachment))
  return { groups, labels, result }
}

/** What is wrong with a configuration is thrown. */
const parsed = <A>(parse: () => A): Effect.Effect<A, CniError> =>
  Effect.try({ try: parse, catch: cniErrorOf })

const previousResult = ({ raw }: NetworkConfig): Json => {
  const result = raw["prevResult"] ?? undefined
  if (isObject(result)) return result
  throw new CniError(
    codes.config,
    "invalid network configuration",
    "prevResult is missing: this plugin publishes ports of an interface that a plugin before it in the chain has made"
  )
}
