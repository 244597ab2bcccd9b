/**
 * What the journal of the page notes: it learns of every mapping that comes or goes from the table of the mappings
 * itself, whatever the reason, and of what is refused from the driver.
 */
import { Context, Effect, Option } from "effect"
import {
  backendText,
  isConflicted,
  type MappingEntry,
  Mappings,
  mappingText
} from "../../src/mapper/model/Mapping.ts"
import type { Journal } from "../../src/page/Journal.ts"
import { keyOf } from "../../src/page/PageRows.ts"
import type { PageEvent } from "../../src/page/PageState.ts"
import { CurrentOwner, type Driver, type DriverError, type GroupsError } from "../../src/protocol/Driver.ts"
import { frontendText } from "../../src/protocol/PortBinding.ts"
import { protocolNumber } from "../../src/protocol/Protocol.ts"

export const recordMappings = (journal: Journal) => {
  let hasBegun = false
  let all: Mappings["Service"]["all"] | undefined
  const note = (kind: PageEvent["kind"], entry: MappingEntry, text: string) =>
    journal.note({ kind, text, key: keyOfEntry(entry), owner: entry.mapping.owner })
  return {
    /** Replaces the services that the mapper calls, as `MapperOptions.decorate` does. */
    decorate: <S>(services: Context.Context<S>): Context.Context<S> => {
      const found = Context.getOption(services as Context.Context<never>, Mappings)
      if (Option.isNone(found)) return services
      const mappings = found.value
      all = mappings.all
      return Context.add(services, Mappings, {
        ...mappings,
        add: (entry) => {
          mappings.add(entry)
          if (hasBegun) note("mapped", entry, textOf(entry))
        },
        delete: (entry) => {
          mappings.delete(entry)
          if (hasBegun) note("unmapped", entry, textOf(entry))
        }
      })
    },
    /** To be called once the mapper has restored what was mapped; notes that as one event. */
    begin: (how: string, kind: "restored" | "tookOver") => {
      hasBegun = true
      const entries = [...(all?.() ?? [])]
      const conflicted = entries.filter(isConflicted)
      const besides = conflicted.length === 0 ? "" : `, ${conflicted.length} of them in conflict`
      if (entries.length > 0 || kind === "tookOver")
        journal.note({ kind, text: `${how} ${entries.length} mappings${besides}`, key: null, owner: null })
      for (const entry of conflicted)
        note("conflicted", entry, `${frontendText(entry.mapping)}: ${entry.reason ?? "it can't be served"}`)
    }
  }
}

const textOf = ({ mapping }: MappingEntry): string => {
  const { mode, protocol } = mapping
  return mode === "routed" ? `${backendText(mapping)}/${protocol}, routed` : mappingText(mapping)
}

const keyOfEntry = ({ mapping }: MappingEntry): string => {
  const { protocol, host, requestedAddress, port, backend, labels } = mapping
  return keyOf({
    protocol: protocolNumber[protocol],
    frontendIp: requestedAddress === "" ? host.text : requestedAddress,
    frontendPort: port,
    backendIp: backend.address.text,
    backendPort: backend.port,
    labels
  })
}

/** The same driver, with each of its refusals noted. */
export const recordRefusals = (
  journal: Journal,
  { mapGroups, ...driver }: Driver["Service"]
): Driver["Service"] => {
  const noting = <A, E, R>(effect: Effect.Effect<A, E, R>, errorOf: (error: E) => DriverError) =>
    Effect.tapError(effect, (error) =>
      Effect.map(CurrentOwner, (owner) =>
        journal.note({ kind: "refused", text: errorOf(error).message, key: null, owner })
      )
    )
  const same = (error: DriverError) => error
  return {
    ...driver,
    mapPorts: (group) => noting(driver.mapPorts(group), same),
    ...(mapGroups === undefined
      ? {}
      : { mapGroups: (groups) => noting(mapGroups(groups), ({ error }: GroupsError) => error) }),
    unmapPorts: (release) => noting(driver.unmapPorts(release), same)
  }
}
