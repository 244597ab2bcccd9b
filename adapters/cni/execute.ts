/** One execution in the plugin's process: runs the task that `Execution` leaves to a port mapper. */
import { Effect, type Scope } from "effect"
import type { Driver } from "../../src/protocol/Driver.ts"
import { type CniError, cniErrorOf } from "./CniError.ts"
import * as Commands from "./commands.ts"
import { type Execution, failed, type Outcome, type Ports, read, succeeded, type Task } from "./Execution.ts"
import { namespaceLabels } from "./NetworkNamespace.ts"
import { containerAddresses, groupsOf } from "./PortMappings.ts"

/** The scope is the delivery of the outcome: if it fails, what the execution published is undone. */
export const execute = (execution: Execution): Effect.Effect<Outcome, never, Driver | Scope.Scope> => {
  const asked = read(execution)
  if (asked._tag === "Answered") return Effect.succeed(asked.outcome)
  const { task, text } = asked
  return perform(task).pipe(
    Effect.catchDefect((defect) => Effect.fail(cniErrorOf(defect))),
    Effect.match({
      onFailure: (error) => failed(error, text),
      onSuccess: () => succeeded(task.command === "ADD" ? task.answer : undefined)
    })
  )
}

const perform = (task: Task): Effect.Effect<void, CniError, Driver | Scope.Scope> => {
  switch (task.command) {
    case "ADD":
      return Effect.flatMap(groupsFor(task), (groups) =>
        Commands.add(task.attachment, groups, {
          ...task.publication.labels,
          ...namespaceLabels(task.netns)
        })
      )
    case "CHECK":
      return Effect.flatMap(groupsFor(task), (groups) => Commands.check(task.attachment, groups))
    case "DEL":
      return Commands.del(task.attachment)
    case "GC":
      return Commands.gc(task.network, task.valid)
    case "STATUS":
      // This process runs, and the configuration is valid: no more to check.
      return Effect.void
  }
}

/** A result without an address of the container is an error. */
const groupsFor = ({ attachment, publication, result }: Ports) =>
  Effect.try({
    try: () => groupsOf(publication.mappings, containerAddresses(result, attachment)),
    catch: cniErrorOf
  })
