/** Which of a container's labels are its own, and not its image's: a pulled image must not publish ports by itself. */
import { Effect } from "effect"
import type { Labels } from "../../src/protocol/PortBinding.ts"
import { ownLabels } from "./Desired.ts"
import type { Container, Engine, EngineError } from "./Engine.ts"

/** An image is used again and again: those of containers that are gone are forgotten where they are many. */
const imagesKept = 256

export interface ImageLabels {
  /** What is ignored is told, once. `undefined` where nothing can be taken for its own. */
  readonly ownLabelsOf: (container: Container) => Effect.Effect<Labels | undefined, EngineError>
  /** What is known of containers that are not among these. */
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
  const ownLabelsOf = Effect.fnUntraced(function* (container: Container) {
    const { image, name, id } = container
    const ofImage = yield* imageLabels(image)
    const labels = ofImage === undefined ? undefined : ownLabels(container, ofImage)
    if (labels?.has("portmapper.publish") !== true && !unnoticed.has(id)) {
      unnoticed.add(id)
      const why =
        ofImage === undefined
          ? "the Engine does not know its image, so its labels may be the image's"
          : "the label is its image's"
      yield* Effect.logWarning(
        `${name}: portmapper.publish=${container.labels.get("portmapper.publish")} is ignored: ${why}; --trust-image-labels publishes it`
      )
    }
    return labels
  })

  return {
    ownLabelsOf,
    forget: (containers) => {
      const ids = new Set(containers.map(({ id }) => id))
      for (const id of unnoticed) if (!ids.has(id)) unnoticed.delete(id)
      if (images.size <= imagesKept) return
      const used = new Set(containers.map(({ image }) => image))
      for (const image of images.keys()) if (!used.has(image)) images.delete(image)
    }
  }
}
