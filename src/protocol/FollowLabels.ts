/** The labels of mappings that the plugin itself keeps published: for a container, or at an interface. */
import type { Labels } from "./PortBinding.ts"
import { interfaceOf } from "./PublishSyntax.ts"

/** The container, as `NAME/ID` with the first 12 digits of the id. */
export const containerLabel = "portmapper.container"
/** The addresses that a user named, where no container is followed. */
export const toLabel = "portmapper.to"
/** The `-p` that asked for it. */
export const publishLabel = "portmapper.publish"
/** Why it is not published: of what is listed without being mapped. */
export const errorLabel = "portmapper.error"

/** The parts of the label of a container. */
export const followedContainer = (
  labels: Labels
): { readonly name: string; readonly id: string } | undefined => {
  const [, name, id] = /^(.+)\/([0-9a-f]{12})$/.exec(labels.get(containerLabel) ?? "") ?? []
  return name === undefined || id === undefined ? undefined : { name, id }
}

/** The interface whose addresses are followed. */
export const followedInterface = (labels: Labels): string | undefined =>
  labels.has(containerLabel) || labels.has(toLabel) ? interfaceOf(labels.get(publishLabel) ?? "") : undefined
