/**
 * Ports that a user requested by a container's name, or at the addresses of an interface: published through restarts,
 * renames and other addresses until they are unmapped. Pure.
 */
import { Result, Schema } from "effect"
import { parseAddress } from "../../src/protocol/Address.ts"
import { meansBackend, type ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { type PublishTo, parsePublish } from "../../src/protocol/PublishSyntax.ts"
import { type Container, shortId } from "./Engine.ts"

/**
 * `id` is the container that had the name at the time of the request; once it is gone, another of the same name
 * replaces it. Where the ports lead to addresses instead, `id` and `name` are both `addressesText`. `publish` is in the
 * format of `publishText`. `without` are container ports that were unmapped since.
 */
export const Subscription = Schema.Struct({
  id: Schema.String,
  name: Schema.String,
  publish: Schema.String,
  labels: Schema.Record(Schema.String, Schema.String),
  owner: Schema.String,
  without: Schema.Array(Schema.Number)
})
export type Subscription = typeof Subscription.Type

/** `172.17.0.2`, `fd00::2`, or `172.17.0.2,fd00::2`. */
export const addressesText = ({ v4, v6 }: PublishTo): string =>
  [v4, v6].flatMap((address) => address?.text ?? []).join(",")

/** The addresses that `addressesText` wrote; `undefined` for the id of a container. */
export const addressesIn = (id: string): PublishTo | undefined => {
  if (!/[.:]/.test(id)) return undefined
  const addresses = id.split(",").flatMap((text) => Result.getOrUndefined(parseAddress(text)) ?? [])
  const ofFamily = (wanted: 4 | 6) => addresses.find(({ family }) => family === wanted)
  return { v4: ofFamily(4), v6: ofFamily(6) }
}

/** A new subscription replaces the one with the same key. */
export const subscriptionKey = ({ id, publish, owner }: Subscription): string => `${owner} ${id} ${publish}`

/**
 * The key of a group mapped for a container, or for addresses. It stays the same after a restart of this process, and
 * when the container's address or name changes. Groups at an interface have `place` in their keys: the address, or the
 * interface's name while it has none.
 */
export const groupKey = (
  owner: string,
  id: string,
  publish: string,
  backendPort: number,
  place?: string
): string =>
  `${owner} ${addressesIn(id) === undefined ? shortId(id) : id} ${publish} ${backendPort}${place === undefined ? "" : ` ${place}`}`

/** The key of a group's port, the same at all addresses of an interface. */
export const portKeyOf = (groupKey: string): string => groupKey.split(" ", 4).join(" ")

export const leadsToAddresses = (key: string): boolean => /^\S+ \S*[.:]/.test(key)

export const publishOfKey = (key: string): string => key.split(" ")[2] ?? ""

export const shortIdOfKey = (key: string): string => key.split(" ")[1] ?? ""

/** The keys of its ports that are released at an interface, whether or not they are published. */
export const keysAtInterface = (
  { id, owner, publish: text }: Subscription,
  released: ReadonlyArray<ReleasedBinding>,
  interfaceName: string | undefined
): ReadonlyArray<string> => {
  if (interfaceName === undefined) return []
  const publish = Result.getOrUndefined(parsePublish(text))
  const hostPorts = publish?.hostPorts
  if (hostPorts === undefined || publish?.interfaceName !== interfaceName) return []
  const to = addressesIn(id)
  return released.flatMap(({ protocol, port, backend }) => {
    if (protocol !== publish.protocol || port < hostPorts.first || port > hostPorts.last) return []
    const containerPort = publish.containerPorts.first + port - hostPorts.first
    const address = to?.[backend.address?.family === 6 ? "v6" : "v4"] ?? to?.v4
    const isMeant =
      to === undefined || address === undefined || meansBackend(backend, { address, port: containerPort })
    return isMeant ? [groupKey(owner, id, text, containerPort)] : []
  })
}

export const subscribedContainer = (
  { id, name }: Subscription,
  all: ReadonlyArray<Container>
): Container | undefined =>
  all.find((container) => container.id === id) ?? all.find((container) => container.name === name)

/** With the name that its container has now. */
export const renamed = (subscription: Subscription, all: ReadonlyArray<Container>): Subscription => {
  const name = subscribedContainer(subscription, all)?.name ?? subscription.name
  return name === subscription.name ? subscription : { ...subscription, name }
}

/** Without the ports with these keys; `undefined` if none is left. */
export const withoutPorts = (
  subscription: Subscription,
  keys: ReadonlySet<string>
): Subscription | undefined => {
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
