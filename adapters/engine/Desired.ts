/**
 * What should be published: computes the groups to map from containers with their labels and from subscriptions.
 * Pure. An entry that can't be published becomes a problem with the container's name, and does not stop the others.
 */
import { Result } from "effect"
import {
  type Idle,
  idleLabel,
  isUnknownLabel,
  parsePolicy,
  setForFollowed
} from "../../src/mapper/model/Labels.ts"
import type { Interfaces } from "../../src/ports/InterfaceAddresses.ts"
import { type Address, isUnspecified } from "../../src/protocol/Address.ts"
import { containerLabel, publishLabel, toLabel } from "../../src/protocol/FollowLabels.ts"
import { interfaceIn, interfaceLabel, parseLabelled } from "../../src/protocol/InterfaceLabel.ts"
import type { Group, Labels } from "../../src/protocol/PortBinding.ts"
import {
  groupsOf,
  hostsOf,
  type Publish,
  type PublishTo,
  parsePublish,
  publishText,
  tooManyPorts
} from "../../src/protocol/PublishSyntax.ts"
import { restingPlace } from "../../src/protocol/RestingPlace.ts"
import { shareLabel } from "../../src/protocol/ServiceName.ts"
import { type Container, isUnready, type Network, nameAndId } from "./Engine.ts"
import { projectLabel } from "./ImageLabels.ts"
import { asleepIn, attachmentOf } from "./Placement.ts"
import { addressesIn, groupKey, type Subscription, subscribedContainer } from "./Subscription.ts"

/** The owner of groups requested by labels. */
export const watchOwner = "watch"

/** One group that should be mapped. */
export interface DesiredGroup {
  /** See `groupKey`. */
  readonly key: string
  /** The container's name; or the addresses that the group leads to, where no container is followed. */
  readonly name: string
  readonly owner: string
  readonly group: Group
}

/** A request that can't be met at the moment. */
export interface Problem {
  readonly name: string
  readonly owner: string
  /** The `-p` concerned, as written; `undefined` if it is the container as a whole. */
  readonly publish: string | undefined
  readonly detail: string
  /** What would be mapped, as far as that is known. */
  readonly desired: DesiredGroup | undefined
  /** Not an error: its container does not run at the moment, or its interface has no address. */
  readonly waiting: boolean
}

export interface Desired {
  readonly groups: ReadonlyArray<DesiredGroup>
  readonly problems: ReadonlyArray<Problem>
}

export const healthLabel = "portmapper.health"
const waitLabel = "portmapper.wait-healthy"

/** An unknown label may be a misspelt `portmapper.publish`. */
export const asksByLabel = ({ running, labels }: Container): boolean =>
  running && (labels.has(publishLabel) || [...labels.keys()].some(isUnknownLabel))

/** What else a request depends on. */
export interface Surroundings {
  readonly all: ReadonlyArray<Container>
  readonly interfaces: Interfaces
  /** Whether the container is asleep while it does not run. */
  readonly sleeps: boolean
}

/**
 * The groups that the own labels of a container request that runs, or that sleeps. One invalid label blocks all of them:
 * it may be the one that restricts which clients are allowed.
 */
export const desiredByLabels = (
  container: Container,
  own: Labels,
  { all, interfaces, sleeps }: Surroundings
): Desired => {
  const { id, name, running } = container
  if (!running && !sleeps) return together([])
  const labelled = interfaceIn(own)
  if (Result.isFailure(labelled)) return problem(name, watchOwner, labelled.failure.message)
  const { interfaceName, others: labels } = labelled.success
  const policy = Result.mapError(parsePolicy(labels), ({ message }) => message)
  const asked = labels.get(publishLabel)
  if (asked === undefined)
    return Result.isFailure(policy) ? problem(name, watchOwner, policy.failure) : together([])
  const attachment = Result.flatMap(policy, () => placeOf(container, labels, all))
  if (Result.isFailure(attachment)) return problem(name, watchOwner, attachment.failure)
  const idle = isReady(container, labels) ? undefined : "waiting"
  const texts = asked.split(",").map((each) => each.trim())
  const publishes = texts.map((text) => parseLabelled(text, interfaceName))
  const tooMany = tooManyPorts(publishes.flatMap((publish) => Result.getOrUndefined(publish) ?? []))
  if (tooMany !== undefined) return problem(name, watchOwner, `${publishLabel}: must be ${tooMany}`)
  const shared = inProject(name, labels)
  if (Result.isFailure(shared)) return problem(name, watchOwner, shared.failure)
  const wanted: Wanted = { id, name, owner: watchOwner, idle }
  return together(
    publishes.map((publish, index) =>
      Result.isFailure(publish)
        ? problem(name, watchOwner, publish.failure, texts[index])
        : desiredAt(attachment.success, publish.success, wanted, shared.success, interfaces)
    )
  )
}

/** Where a container is, or, where it sleeps and so does not run, where it is to be. */
const placeOf = (
  container: Container,
  labels: Labels,
  all: ReadonlyArray<Container>
): Result.Result<Placed, string> =>
  container.running
    ? attachmentOf(container, labels, all)
    : Result.map(asleepIn(container, labels), (network) => ({
        v4: restingPlace(container.id),
        v6: undefined,
        network
      }))

/** Whether its backends get new connections. A container that shares no port, and has no label about it, always does. */
const isReady = (container: Container, labels: Labels): boolean => {
  const health = labels.get(healthLabel)
  const follows = labels.has(shareLabel) || labels.has(waitLabel) || health === "follow"
  return !follows || !isUnready(container, health)
}

/** Why a group can't be mapped at the moment. */
export const problemOf = (desired: DesiredGroup, detail: string, waiting: boolean): Problem => ({
  name: desired.name,
  owner: desired.owner,
  publish: desired.group.labels.get(publishLabel),
  detail,
  desired,
  waiting
})

/** The same groups, not to be mapped for now. */
const blocked = ({ groups, problems }: Desired, detail: string, waiting: boolean): Desired => ({
  groups: [],
  problems: [...problems, ...groups.map((desired) => problemOf(desired, detail, waiting))]
})

/**
 * The labels with the name of a shared service inside its compose project, so that no project joins another's:
 * `shop/web`. Without compose the container's name without its number stands for the project, `.web/web`; no
 * project's name begins with a dot.
 */
const inProject = (name: string, labels: Labels): Result.Result<Labels, string> => {
  const share = labels.get(shareLabel)
  if (share === undefined || share.startsWith("/")) return Result.succeed(labels)
  if (share.includes("/")) return Result.fail(`${shareLabel}=${share}: must be a name without a / inside`)
  const project = labels.get(projectLabel) ?? `.${name.replace(/[-_.]?\d+$/, "")}`
  return Result.succeed(new Map([...labels, [shareLabel, `${project}/${share}`]]))
}

/** The groups that a subscription requests. If its container does not run or does not exist, the request waits. */
export const desiredBySubscription = (
  subscription: Subscription,
  { all, interfaces, sleeps }: Surroundings
): Desired => {
  const { id, owner } = subscription
  const without = new Set(subscription.without)
  const isLeft = ({ group }: DesiredGroup) => !without.has(backendPort(group))
  const container = subscribedContainer(subscription, all)
  const name = container?.name ?? subscription.name
  const publish = parsePublish(subscription.publish)
  if (Result.isFailure(publish)) return problem(name, owner, publish.failure, subscription.publish)
  const labels = new Map(Object.entries(subscription.labels))
  const to = addressesIn(id)
  const attachment = (): Result.Result<Placed, string> => {
    if (container === undefined) return Result.fail(`there is no container ${name} now`)
    return container.running || sleeps
      ? placeOf(container, labels, all)
      : Result.fail(`container ${name} is not running`)
  }
  const placed = to === undefined ? attachment() : Result.succeed(to)
  const { groups, problems } = desiredAt(
    Result.getOrElse(placed, () => unattached),
    publish.success,
    { id, name, owner },
    labels,
    interfaces
  )
  const desired: Desired = {
    groups: groups.filter(isLeft),
    problems: problems.filter(({ desired }) => desired === undefined || isLeft(desired))
  }
  return Result.isSuccess(placed) ? desired : blocked(desired, placed.failure, container?.running !== true)
}

export const together = (all: ReadonlyArray<Desired>): Desired => ({
  groups: all.flatMap(({ groups }) => groups),
  problems: all.flatMap(({ problems }) => problems)
})

/** The keys of all groups, also of those that can't be mapped at the moment. */
export const keysOf = ({ groups, problems }: Desired): ReadonlyArray<string> =>
  [...groups, ...problems.flatMap(({ desired }) => desired ?? [])].map(({ key }) => key)

/** Whose ports are wanted, and how. */
interface Wanted {
  readonly id: string
  readonly name: string
  readonly owner: string
  readonly idle?: Idle | undefined
}

/** The label that names what is followed. */
export const followLabel = ({ id, name }: Pick<Wanted, "id" | "name">): readonly [string, string] =>
  addressesIn(id) === undefined ? [containerLabel, nameAndId({ name, id })] : [toLabel, id]

const desiredAt = (
  to: Placed,
  publish: Publish,
  { id, name, owner, idle }: Wanted,
  labels: Labels,
  interfaces: Interfaces
): Desired => {
  const text = publishText(publish)
  const own = new Map([
    followLabel({ id, name }),
    // No label of the container sets these.
    ...[...labels].filter(([label]) => !setForFollowed.includes(label)),
    ...(idle === undefined ? [] : [[idleLabel, idle] as const]),
    [publishLabel, text] as const
  ])
  const at = (hosts: ReadonlyArray<Address>, place?: string): Desired => {
    const groups = groupsOf(publish, to, own, hosts)
    if (Result.isFailure(groups)) return problem(name, owner, groups.failure, text)
    return {
      groups: groups.success.map((group) => ({
        key: groupKey(owner, id, text, backendPort(group), place),
        ...{ name, owner, group }
      })),
      problems: []
    }
  }
  const { interfaceName } = publish
  if (interfaceName === undefined) return at(hostsOf(publish.host ?? boundBy(to.network)))
  // One group for each address: where the port of one is taken, it is published at the others.
  const addresses = interfaces.get(interfaceName)
  const reachable = addresses?.filter(({ family }) => family === 6 || to.v4 !== undefined) ?? []
  return reachable.length === 0
    ? blocked(at([nowhereIn(to)], interfaceName), lack(interfaceName, addresses), true)
    : together(reachable.map((address) => at([address], address.key)))
}

const lack = (interfaceName: string, addresses: ReadonlyArray<Address> | undefined): string => {
  if (addresses === undefined) return `there is no interface ${interfaceName} now`
  return addresses.length === 0
    ? `the interface ${interfaceName} has no address now`
    : `the interface ${interfaceName} has no IPv6 address now, and IPv4 leads to an IPv4 address only`
}

/** The address at which the Engine binds a `-p` without one: for the Engine, `0.0.0.0` alone means both families. */
const boundBy = (network: Placed["network"]): Address | undefined => {
  const hostBinding = network?.hostBinding
  return hostBinding?.family === 4 && isUnspecified(hostBinding) ? undefined : hostBinding
}

const backendPort = ({ entries }: Group): number => entries[0]?.backend.port ?? 0

const problem = (name: string, owner: string, detail: string, publish?: string): Desired => ({
  groups: [],
  problems: [{ name, owner, publish, detail, desired: undefined, waiting: false }]
})

/** The groups of a container without an address: never mapped, only listed with their problem. */
const noAddress: Address = { text: "", family: 4, octets: new Uint8Array(4), zone: "", key: "" }
const unattached: Placed = { v4: noAddress, v6: undefined }

/** The host's side of a group that has no address there. */
const nowhereIn = ({ v4 }: PublishTo): Address => ({ ...noAddress, family: v4 === undefined ? 6 : 4 })

type Placed = PublishTo & { readonly network?: Pick<Network, "hostBinding"> }

/** Whether the labels may name an interface. */
export const mayNameInterface = (labels: Labels): boolean =>
  labels.has(interfaceLabel) || /[A-Za-z_][\w.-]*:/.test(labels.get(publishLabel) ?? "")
