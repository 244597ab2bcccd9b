/**
 * Whether overlapping calls had outcomes that they could have had one after the other, in some order that keeps the
 * order of calls that did not overlap. Brute force with a memo (Wing & Gong, Lowe): for histories of a dozen calls.
 */
import { afterCall, afterLoss, type Model, type ModelHost } from "./Model.ts"
import type { Call, Ended } from "./Target.ts"

/** The moment at which the mapper undoes a call whose answer was lost; it comes after the call itself. */
export interface TakenBack {
  readonly lost: number
  readonly from: number
  readonly to: number
}

/** A call that began and ended at these moments, which only have an order. */
export interface Overlapping {
  readonly call: Call
  readonly ended: Ended
  readonly from: number
  readonly to: number
}

/** The models that some order leads to and that pass `fits`; empty where no order explains the history. */
export const linearize = (
  host: ModelHost,
  before: Model,
  history: ReadonlyArray<Overlapping | TakenBack>,
  fits: (model: Model) => boolean
): ReadonlyArray<Model> => {
  const seen = new Set<string>()
  const search = (done: ReadonlySet<number>, models: ReadonlyArray<Model>): ReadonlyArray<Model> => {
    if (done.size === history.length) return models.filter(fits)
    const state = `${[...done].sort((a, b) => a - b).join()} ${modelsKey(models)}`
    if (seen.has(state)) return []
    seen.add(state)
    const open = history.flatMap((each, index) => (done.has(index) ? [] : [{ each, index }]))
    const firstEnd = Math.min(...open.map(({ each }) => each.to))
    for (const { each, index } of open) {
      if (each.from > firstEnd) continue
      const next = models.flatMap((model) => {
        if ("lost" in each) return afterLoss(model, each.lost)
        const verdict = afterCall(host, model, each.call, each.ended)
        return verdict._tag === "May" ? verdict.models : []
      })
      if (next.length === 0) continue
      const found = search(new Set([...done, index]), next)
      if (found.length > 0) return found
    }
    return []
  }
  return search(new Set(), [before])
}

/** Equal for models that are indistinguishable. */
export const modelsKey = (models: ReadonlyArray<Model>): string =>
  JSON.stringify(models.map((model) => ({ ...model, last: [...model.last] })))
