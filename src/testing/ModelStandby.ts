/** One container in two networks, in the model: what stands by, and what takes over (rule 13 of docs/PROTOCOL.md). */
import type { Model, ModelMapping } from "./ModelState.ts"

type At = Pick<ModelMapping, "proto" | "key" | "port">

/** The mapping of this frontend. */
export const beforeOf = ({ mappings }: Model, at: At): ModelMapping | undefined =>
  mappings.find((mapping) => mapping.mode !== "routed" && !mapping.standby && isAt(mapping, at))

const isAt = (mapping: ModelMapping, at: At): boolean =>
  mapping.proto === at.proto && mapping.key === at.key && mapping.port === at.port

/** Neither in conflict nor a standby of such a mapping. */
export const holdsPort = (model: Model, mapping: ModelMapping): boolean =>
  mapping.standing !== "conflicted" &&
  (!mapping.standby || beforeOf(model, mapping)?.standing !== "conflicted")

/** Whether a claim of this owner waits behind what is there and stays. */
export const standsBehind = (
  model: Model,
  at: At,
  owner: string,
  stays: (mapping: ModelMapping) => boolean
): boolean => {
  const before = beforeOf(model, at)
  return (
    before !== undefined &&
    before.standing !== "conflicted" &&
    areOfOneContainer(before.owner, owner) &&
    model.mappings.some((mapping) => mapping.mode !== "routed" && isAt(mapping, at) && stays(mapping))
  )
}

const areOfOneContainer = (one: string, other: string): boolean =>
  one !== other && one.includes("/") && one.split("/")[0] === other.split("/")[0]

/** The release was done: a standby has each frontend that was given up, as its mapping was in `before`. */
export const succeeded = (after: Model, before: Model): ReadonlyArray<Model> =>
  takenOver(after, (standby) => {
    const from = beforeOf(before, standby)
    const taken = { ...standby, standby: undefined, wide: from?.wide ?? false }
    return [from?.standing === "conflicted" ? { ...taken, standing: "conflicted" } : taken]
  })

/**
 * What is retried at any later time: a standby that nothing stands before, after a failure or a kill, takes over; a
 * mapping that took over is relayed.
 */
export const afterRetries = (model: Model): ReadonlyArray<Model> => {
  const [first, ...others] = takenOver(model, (standby) => [
    standby,
    ...[false, true].flatMap((wide): ReadonlyArray<ModelMapping> => {
      const taken = { ...standby, standby: undefined, wide }
      return [taken, { ...taken, standing: "conflicted" }, { ...taken, unrelayed: true }]
    })
  ])
  if (!model.mappings.some(({ unrelayed }) => unrelayed)) return others
  const relayed = model.mappings.map((mapping) => ({ ...mapping, unrelayed: undefined }))
  return [...others, { ...(first ?? model), mappings: relayed }]
}

const takenOver = (
  model: Model,
  statesOf: (standby: ModelMapping) => ReadonlyArray<ModelMapping>
): ReadonlyArray<Model> =>
  model.mappings
    .filter(
      (mapping, index, all) =>
        mapping.standby &&
        beforeOf(model, mapping) === undefined &&
        all.findIndex((other) => other.standby && isAt(other, mapping)) === index
    )
    .reduce<ReadonlyArray<Model>>(
      (models, orphan) =>
        models.flatMap((each) =>
          each.mappings
            .filter((mapping) => mapping.standby && isAt(mapping, orphan))
            .flatMap((standby) =>
              statesOf(standby).map((state) => ({
                ...each,
                mappings: each.mappings.map((mapping) => (mapping === standby ? state : mapping))
              }))
            )
        ),
      [model]
    )
