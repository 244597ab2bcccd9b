/**
 * Which of a container's labels count. A pulled image must not publish ports by itself, nor widen what the operator
 * publishes. The Engine merges an image's labels into its containers', so a label that has the same value in both may be
 * the image's or the operator's: what it does then decides.
 */
import { Effect, Result } from "effect"
import { isOwnLabel, labelNames } from "../../src/mapper/Labels.ts"
import type { Labels } from "../../src/protocol/PortBinding.ts"
import type { Container, Engine, EngineError } from "./Engine.ts"

/**
 * `narrows`: lets in or forwards less than without it, so it counts wherever it comes from. `opens`: makes more reachable, or
 * keeps more of the host busy, so it is dropped. `steers`: neither with it nor without it less is reachable, so nothing is
 * published until it differs from the image's.
 */
export type LabelEffect = "narrows" | "opens" | "steers"

const labelEffects: Record<(typeof labelNames)[number], (value: string) => LabelEffect> = {
  allow: () => "narrows",
  // The relay's packets pass the host's INPUT chain, those of every other mode don't; `routed` also knows no allow-list.
  mode: (value) => (value === "proxy" ? "narrows" : "steers"),
  // Without the header that a backend expects, a client could send one of its own, with any source.
  "proxy-protocol": () => "narrows",
  "udp-idle": () => "opens",
  publish: () => "opens",
  // The same port may serve something else at the container's address in another network.
  network: () => "steers"
}

/** An unknown label narrows: it may be the mistyped one that says whom to let in, and is refused with its name later. */
export const labelEffect = (name: string, value: string): LabelEffect => {
  // Written by `watch` itself.
  if (name === "portmapper.container") return "opens"
  const known = labelNames.find((known) => name === `portmapper.${known}`)
  return known === undefined ? "narrows" : labelEffects[known](value)
}

/**
 * The labels that count; or why nothing may be published by them. Where none asks for anything, what the image brings along
 * is nobody's mistake.
 */
export const countedLabels = (labels: Labels, ofImage: Labels): Result.Result<Labels, string> => {
  const counted = new Map<string, string>()
  let undecided: string | undefined
  const asks = labels.has("portmapper.publish")
  for (const [name, value] of labels) {
    if (!isOwnLabel(name)) continue
    const isImages = ofImage.get(name) === value
    if (isImages && !asks) continue
    const effect = isImages ? labelEffect(name, value) : "narrows"
    if (effect === "steers") undecided ??= `${name}=${value}`
    else if (effect === "narrows") counted.set(name, value)
  }
  if (asks && !counted.has("portmapper.publish")) return Result.fail("the label is its image's")
  return undecided === undefined
    ? Result.succeed(counted)
    : Result.fail(`${undecided} is its image's too: give the container another value`)
}

/** An image is used again and again: those of containers that are gone are forgotten where they are many. */
const imagesKept = 256

export interface ImageLabels {
  /** `undefined` where nothing may be published by them, which is logged once. */
  readonly countedLabelsOf: (container: Container) => Effect.Effect<Labels | undefined, EngineError>
  /** Forgets what is known of containers that are not among these. */
  readonly forget: (containers: ReadonlyArray<Container>) => void
}

export const makeImageLabels = (engine: Engine["Service"]): ImageLabels => {
  const images = new Map<string, Labels>()
  const unnoticed = new Set<string>()

  /** Images never change; one that the Engine can't tell of now, while it tells of others, is asked for again. */
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

  /** An image that is gone can't be compared with: then nothing is taken for the container's own. */
  const countedLabelsOf = Effect.fnUntraced(function* ({ image, name, id, labels }: Container) {
    const ofImage = yield* imageLabels(image)
    const counted =
      ofImage === undefined
        ? Result.fail("the Engine does not know its image, so its labels may be the image's")
        : countedLabels(labels, ofImage)
    if (Result.isSuccess(counted)) return counted.success
    const asked = labels.get("portmapper.publish")
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
