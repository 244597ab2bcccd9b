/**
 * What should be published: computes the groups to map from containers with their labels and from subscriptions.
 * Pure. An entry that can't be published becomes a problem with the container's name, and does not stop the others.
 */
import { Result } from "effect"
import { containerLabel, type Idle, idleLabel, isUnknownLabel, parsePolicy } from "../../src/mapper/Labels.ts"
import { type Address, isUnspecified } from "../../src/protocol/Address.ts"
import type { Group, Labels } from "../../src/protocol/PortBinding.ts"
import {
  groupsOf,
  hostsOf,
  type Publish,
  parsePublish,
  publishText,
  tooManyPorts
} from "../../src/protocol/PublishSyntax.ts"
import { type ContainerSubscription, groupKey, subscribedContainer } from "./ContainerSubscription.ts"
import { type Attachment, type Container, type Network, nameAndId } from "./Engine.ts"
import { projectLabel } from "./ImageLabels.ts"
import { attachmentOf } from "./Placement.ts"

/** The owner of groups requested by labels. */
export const watchOwner = "watch"

/** One group that should be mapped. */
export interface DesiredGroup {
  /** See `groupKey`. */
  readonly key: string
  /** The container's name. */
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
  /** Not an error: its container does not run at the moment. */
  readonly waiting: boolean
}

export interface Desired {
  readonly groups: ReadonlyArray<DesiredGroup>
  readonly problems: ReadonlyArray<Problem>
}

export const publishLabel = "portmapper.publish"
export const shareLabel = "portmapper.share"
const healthLabel = "portmapper.health"
const waitLabel = "portmapper.wait-healthy"

/** An unknown label may be a misspelt `portmapper.publish`. */
export const asksByLabel = ({ running, labels }: Container): boolean =>
  running && (labels.has(publishLabel) || [...labels.keys()].some(isUnknownLabel))

/**
 * The groups that a running container's own labels request. One invalid label blocks all of them: it may be the one
 * that restricts which clients are allowed.
 */
export const desiredByLabels = (
  container: Container,
  labels: Labels,
  all: ReadonlyArray<Container>
): Desired => {
  const { id, name } = container
  const policy = Result.mapError(parsePolicy(labels), ({ message }) => message)
  const asked = labels.get(publishLabel)
  if (asked === undefined)
    return Result.isFailure(policy) ? problem(name, watchOwner, policy.failure) : together([])
  const attachment = Result.flatMap(policy, () => attachmentOf(container, labels, all))
  if (Result.isFailure(attachment)) return problem(name, watchOwner, attachment.failure)
  const idle = isReady(container, labels) ? undefined : "waiting"
  const texts = asked.split(",").map((each) => each.trim())
  const publishes = texts.map(parsePublish)
  const tooMany = tooManyPorts(publishes.flatMap((publish) => Result.getOrUndefined(publish) ?? []))
  if (tooMany !== undefined) return problem(name, watchOwner, `${publishLabel}: must be ${tooMany}`)
  const own = inProject(name, labels)
  if (Result.isFailure(own)) return problem(name, watchOwner, own.failure)
  return together(
    publishes.map((publish, index) =>
      Result.isFailure(publish)
        ? problem(name, watchOwner, publish.failure, texts[index])
        : desiredAt(attachment.success, publish.success, { id, name, owner: watchOwner, idle }, own.success)
    )
  )
}

/** Whether its backends get new connections. A container that shares no port, and has no label about it, always does. */
const isReady = ({ unready }: Container, labels: Labels): boolean => {
  const health = labels.get(healthLabel)
  const follows = labels.has(shareLabel) || labels.has(waitLabel) || health === "follow"
  return unready === undefined || !follows || (health === "ignore" && unready !== "stopping")
}

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
  subscription: ContainerSubscription,
  all: ReadonlyArray<Container>
): Desired => {
  const { id, owner } = subscription
  const without = new Set(subscription.without)
  const container = subscribedContainer(subscription, all)
  const name = container?.name ?? subscription.name
  const publish = parsePublish(subscription.publish)
  if (Result.isFailure(publish)) return problem(name, owner, publish.failure, subscription.publish)
  const labels = new Map(Object.entries(subscription.labels))
  const attachment = attachmentOfRunning(container, name, labels, all)
  const desired = desiredAt(
    Result.getOrElse(attachment, () => unattached),
    publish.success,
    { id, name, owner },
    labels
  )
  const groups = desired.groups.filter(({ group }) => !without.has(backendPort(group)))
  if (Result.isSuccess(attachment)) return { ...desired, groups }
  const { failure: detail } = attachment
  const waiting = container?.running !== true
  return {
    groups: [],
    problems: groups.map((each) => ({
      name,
      owner,
      publish: subscription.publish,
      detail,
      desired: each,
      waiting
    }))
  }
}

export const together = (all: ReadonlyArray<Desired>): Desired => ({
  groups: all.flatMap(({ groups }) => groups),
  problems: all.flatMap(({ problems }) => problems)
})

const attachmentOfRunning = (
  container: Container | undefined,
  name: string,
  labels: Labels,
  all: ReadonlyArray<Container>
): Result.Result<Attachment, string> => {
  if (container === undefined) return Result.fail(`there is no container ${name} now`)
  return container.running
    ? attachmentOf(container, labels, all)
    : Result.fail(`container ${name} is not running`)
}

/** Whose ports are wanted, and how. */
interface Wanted {
  readonly id: string
  readonly name: string
  readonly owner: string
  readonly idle?: Idle | undefined
}

const desiredAt = (
  { v4, v6, network }: Placed,
  publish: Publish,
  { id, name, owner, idle }: Wanted,
  labels: Labels
): Desired => {
  const text = publishText(publish)
  const own = new Map([
    [containerLabel, nameAndId({ name, id })] as const,
    ...[...labels].filter(([label]) => label !== containerLabel && label !== idleLabel),
    ...(idle === undefined ? [] : [[idleLabel, idle] as const]),
    [publishLabel, text] as const
  ])
  const groups = groupsOf(publish, { v4, v6 }, own, hostsOf(publish.host ?? boundBy(network)))
  if (Result.isFailure(groups)) return problem(name, owner, groups.failure, text)
  return {
    groups: groups.success.map((group) => ({
      key: groupKey(owner, id, text, backendPort(group)),
      name,
      owner,
      group
    })),
    problems: []
  }
}

/** The address at which the Engine binds a `-p` without one: for the Engine, `0.0.0.0` alone means both families. */
const boundBy = ({ hostBinding }: Placed["network"]): Address | undefined =>
  hostBinding?.family === 4 && isUnspecified(hostBinding) ? undefined : hostBinding

const backendPort = ({ entries }: Group): number => entries[0]?.backend.port ?? 0

const problem = (name: string, owner: string, detail: string, publish?: string): Desired => ({
  groups: [],
  problems: [{ name, owner, publish, detail, desired: undefined, waiting: false }]
})

/** The groups of a container without an address: never mapped, only listed with their problem. */
const noAddress: Address = { text: "", family: 4, octets: new Uint8Array(4), zone: "", key: "" }
const unattached: Placed = { v4: noAddress, v6: undefined, network: { hostBinding: undefined } }

type Placed = Pick<Attachment, "v4" | "v6"> & { readonly network: Pick<Network, "hostBinding"> }
