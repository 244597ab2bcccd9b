/**
 * Ports that a user requested by a container's name: published through restarts and renames until they are
 * unmapped. Pure.
 */
import { Result, Schema } from "effect"
import { parsePublish } from "../../src/protocol/PublishSyntax.ts"
import { type Container, shortId } from "./Engine.ts"

/**
 * `id` is the container that had the name at the time of the request; once it is gone, another of the same name
 * replaces it. `publish` is in the format of `publishText`. `without` are container ports that were unmapped since.
 */
export const ContainerSubscription = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  publish: Schema.String,
  labels: Schema.Record(Schema.String, Schema.String),
  owner: Schema.String,
  without: Schema.Array(Schema.Number)
})
export type ContainerSubscription = typeof ContainerSubscription.Type

/** A new subscription replaces the one with the same key. */
export const subscriptionKey = ({ id, publish, owner }: ContainerSubscription): string =>
  `${owner} ${id} ${publish}`

/**
 * The key of a group mapped for a container. It stays the same after a restart of this process, and when the
 * container's address or name changes.
 */
export const groupKey = (owner: string, containerId: string, publish: string, backendPort: number): string =>
  `${owner} ${shortId(containerId)} ${publish} ${backendPort}`

export const shortIdOfKey = (key: string): string => key.split(" ")[1] ?? ""

export const subscribedContainer = (
  { id, name }: ContainerSubscription,
  all: ReadonlyArray<Container>
): Container | undefined =>
  all.find((container) => container.id === id) ?? all.find((container) => container.name === name)

/** With the name that its container has now. */
export const renamed = (
  subscription: ContainerSubscription,
  all: ReadonlyArray<Container>
): ContainerSubscription => {
  const name = subscribedContainer(subscription, all)?.name ?? subscription.name
  return name === subscription.name ? subscription : { ...subscription, name }
}

/** Without the groups with these keys; `undefined` if none is left. */
export const withoutGroups = (
  subscription: ContainerSubscription,
  keys: ReadonlySet<string>
): ContainerSubscription | undefined => {
  const { id, owner, publish } = subscription
  const parsed = parsePublish(publish)
  if (Result.isFailure(parsed)) return subscription
  const { first, last } = parsed.success.containerPorts
  const ports = Array.from({ length: last - first + 1 }, (_, index) => first + index)
  const without = ports.filter(
    (port) => subscription.without.includes(port) || keys.has(groupKey(owner, id, publish, port))
  )
  return without.length === ports.length ? undefined : { ...subscription, without }
}
