/**
 * Which of a container's labels count. A pulled image must not publish ports by itself, nor widen what the operator
 * publishes. The Engine merges an image's labels into its containers', so a label that has the same value in both
 * may be the image's or the operator's: then the label's effect decides.
 */
import { Effect, Result } from "effect"
import { isOwnLabel, labelNames, setForFollowed } from "../../src/mapper/model/Labels.ts"
import { publishLabel } from "../../src/protocol/FollowLabels.ts"
import type { Labels } from "../../src/protocol/PortBinding.ts"
import type { Container, Engine, EngineError } from "./Engine.ts"

/**
 * `narrows`: admits or forwards less than without it, so it counts whatever its origin. `opens`: exposes more, or
 * keeps more of the host busy, so it is dropped. `steers`: exposes no less either with or without it, so nothing is
 * published until it differs from the image's.
 */
export type LabelEffect = "narrows" | "opens" | "steers"

const labelEffects: Record<(typeof labelNames)[number], (value: string) => LabelEffect> = {
  allow: () => "narrows",
  // The relay's packets pass the host's INPUT chain, those of every other mode don't; `routed` also ignores
  // allow-lists.
  mode: (value) => (value === "proxy" ? "narrows" : "steers"),
  // Without the header that a backend expects, a client could send a forged one with any source.
  "proxy-protocol": () => "narrows",
  "udp-idle": () => "opens",
  connections: () => "narrows",
  rate: () => "narrows",
  "rate-per-source": () => "narrows",
  // An image must not put itself in front of somebody's port.
  share: () => "opens",
  balance: () => "opens",
  // An image must neither take a port from other hosts, nor share one that is to be unique.
  scope: () => "opens",
  health: () => "opens",
  // An image must not have itself started or stopped.
  wake: () => "opens",
  "wake-timeout": () => "opens",
  "wake-count": () => "opens",
  sleep: () => "opens",
  "wait-healthy": () => "opens",
  publish: () => "opens",
  // The same port may belong to another service at the container's address in another network.
  network: () => "steers",
  // The network may bind where it can't be reached from outside.
  interface: () => "steers"
}

/** The label with which compose marks the containers of a project. */
export const projectLabel = "com.docker.compose.project"

/**
 * An unknown label narrows: it may be a misspelt label that restricts clients; it is refused with its name later.
 */
export const labelEffect = (name: string, value: string): LabelEffect => {
  if (setForFollowed.includes(name)) return "opens"
  const known = labelNames.find((known) => name === `portmapper.${known}`)
  return known === undefined ? "narrows" : labelEffects[known](value)
}

/**
 * The labels that count, or why none may be published by. If none requests publishing, the image's labels are
 * ignored without an error.
 */
export const countedLabels = (labels: Labels, ofImage: Labels): Result.Result<Labels, string> => {
  const counted = new Map<string, string>()
  let undecided: string | undefined
  const asks = labels.has(publishLabel)
  for (const [name, value] of labels) {
    if (!isOwnLabel(name)) continue
    const isImages = ofImage.get(name) === value
    if (isImages && !asks) continue
    const effect = isImages ? labelEffect(name, value) : "narrows"
    if (effect === "steers") undecided ??= `${name}=${value}`
    else if (effect === "narrows") counted.set(name, value)
  }
  const project = labels.get(projectLabel)
  if (project !== undefined && ofImage.get(projectLabel) !== project) counted.set(projectLabel, project)
  if (asks && !counted.has(publishLabel)) return Result.fail("the label is its image's")
  return undecided === undefined
    ? Result.succeed(counted)
    : Result.fail(`${undecided} is its image's too: give the container another value`)
}

/**
 * Images are reused, so their labels stay cached; beyond this many, those of images without a container are
 * dropped.
 */
const imagesKept = 256

export interface ImageLabels {
  /** `undefined` if the labels must not publish anything, which is logged once. */
  readonly countedLabelsOf: (container: Container) => Effect.Effect<Labels | undefined, EngineError>
  /** Drops what is cached for containers that are not among these. */
  readonly forget: (containers: ReadonlyArray<Container>) => void
}

export const makeImageLabels = (engine: Engine["Service"]): ImageLabels => {
  const images = new Map<string, Labels>()
  const unnoticed = new Set<string>()

  /** Images never change. If the Engine does not return one now, the next call requests it again. */
  const imageLabels = Effect.fnUntraced(function* (image: string) {
    const known = images.get(image)
    if (known !== undefined) return known
    const labels = yield* Effect.catchIf(
      engine.imageLabels(image),
      ({ reason }) => reason === "Refused" || reason === "NotAnEngine",
      () => Effect.succeed(undefined)
    )
    if (labels !== undefined) images.set(image, labels)
    return labels
  })

  /** An image that is gone can't be compared with: then no label counts as the container's own. */
  const countedLabelsOf = Effect.fnUntraced(function* ({ image, name, id, labels }: Container) {
    const ofImage = yield* imageLabels(image)
    const counted =
      ofImage === undefined
        ? Result.fail("the Engine does not know its image, so its labels may be the image's")
        : countedLabels(labels, ofImage)
    if (Result.isSuccess(counted)) return counted.success
    const asked = labels.get(publishLabel)
    if (asked !== undefined && !unnoticed.has(id)) {
      unnoticed.add(id)
      yield* Effect.logWarning(
        `${name}: portmapper.publish=${asked} is ignored: ${counted.failure}; --trust-image-labels publishes it`
      )
    }
    return undefined
  })

  return {
    countedLabelsOf,
    forget: (containers) => {
      const ids = new Set(containers.map(({ id }) => id))
      for (const id of unnoticed) if (!ids.has(id)) unnoticed.delete(id)
      if (images.size <= imagesKept) return
      const used = new Set(containers.map(({ image }) => image))
      for (const image of images.keys()) if (!used.has(image)) images.delete(image)
    }
  }
}
