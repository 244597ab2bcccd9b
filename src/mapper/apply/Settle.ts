/** What becomes of the entries that an answer names, once it was delivered or lost. */
import { Effect } from "effect"
import { logFailure, type MapperContext } from "../MapperContext.ts"
import { recordEntries } from "../MappingStore.ts"
import { type MappingEntry, mappingKey, nextStatus } from "../model/Mapping.ts"
import { release } from "./Release.ts"

/** The answer was delivered: marks the entries that it names, and that still exist, as answered. */
export const commit = ({ mappings, store }: MapperContext, answered: ReadonlyArray<MappingEntry>) =>
  Effect.suspend(() => {
    const unrecorded: Array<MappingEntry> = []
    for (const entry of answered.map(current)) {
      const { status } = entry
      if (status._tag === "Gone") continue
      entry.status = nextStatus(status, "delivered")
      if (status._tag !== "Answered" || mappings.dirty.record) unrecorded.push(entry)
    }
    return logFailure("recording the answer", recordEntries(store, unrecorded))
  })

/**
 * The answer was lost: releases the entries that only this call has named. The policy requested last stays, and
 * evicted entries stay evicted. An entry that can't be released now may be evicted later.
 */
export const withdraw = (context: MapperContext, answered: ReadonlyArray<MappingEntry>) =>
  Effect.suspend(() => {
    const orphans = new Set<MappingEntry>()
    for (const entry of answered.map(current)) {
      const there = entry.status._tag !== "Gone"
      entry.status = nextStatus(entry.status, "lost")
      if (there && entry.status._tag === "Gone") orphans.add(entry)
    }
    return Effect.catch(release(context, [...orphans]), (error) => {
      for (const entry of orphans)
        if (context.mappings.get(mappingKey(entry.mapping)) === entry)
          entry.status = nextStatus(entry.status, "stuck")
      return Effect.logError(`undoing an undelivered answer: ${error.message}`)
    })
  })

/** The entry that stands for this one in a pending answer. */
const current = (entry: MappingEntry): MappingEntry =>
  entry.replacedBy === undefined ? entry : current(entry.replacedBy)
