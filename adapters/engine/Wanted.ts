/**
 * What containers ask to be published, by their labels or because a person said so: from what the Engine tells to the groups
 * to map. Pure: what can't be done is told with the container's name, and keeps nothing else from being done.
 */
import { Result } from "effect"
import { parsePolicy } from "../../src/mapper/Labels.ts"
import type { Address } from "../../src/protocol/Address.ts"
import type { Group, Labels } from "../../src/protocol/PortBinding.ts"
import { groupsOf, type Publish, parsePublish, publishText } from "../../src/protocol/PublishSyntax.ts"
import type { Attachment, Container } from "./Engine.ts"

/** The owner of what labels ask for. */
export const watchOwner = "watch"

/** What a person asked for a container by its name: followed until it is unmapped. */
export interface Follow {
  /** The container that had the name then; one of the same name takes its place once it is gone. */
  readonly id: string
  readonly name: string
  /** As `publishText` writes it. */
  readonly publish: string
  readonly labels: Readonly<Record<string, string>>
  readonly owner: string
  /** Container ports that were unmapped since. */
  readonly without: ReadonlyArray<number>
}

/** One group that should be mapped. */
export interface Want {
  /** The same want in another process, for another address or under another name of the container has the same key. */
  readonly key: string
  /** The container's name. */
  readonly name: string
  readonly owner: string
  readonly group: Group
}

/** What is asked for and can't be had as things are. */
export interface Problem {
  readonly name: string
  readonly owner: string
  /** The `-p` concerned, as it was written; `undefined` where it is the container as a whole. */
  readonly publish: string | undefined
  readonly detail: string
  /** What would be mapped, as far as that is known. */
  readonly want: Want | undefined
  /** Nothing is wrong: its container does not run just now. */
  readonly waiting: boolean
}

export interface Wanted {
  readonly wants: ReadonlyArray<Want>
  readonly problems: ReadonlyArray<Problem>
}

/** Says which container a mapping is for, as `NAME/ID` with the first 12 digits of the id. */
export const containerLabel = "portmapper.container"
const publishLabel = "portmapper.publish"
const networkLabel = "portmapper.network"

export const shortId = (id: string): string => id.slice(0, 12)

export const containerOfLabels = (
  labels: Labels
): { readonly name: string; readonly id: string } | undefined => {
  const [, name, id] = /^(.+)\/([0-9a-f]{12})$/.exec(labels.get(containerLabel) ?? "") ?? []
  return name === undefined || id === undefined ? undefined : { name, id }
}

/** The key of the want that a mapping with these labels is for, if it is for any. */
export const keyOfMapping = (owner: string, labels: Labels, backendPort: number): string | undefined => {
  const container = containerOfLabels(labels)
  const publish = labels.get(publishLabel)
  return container === undefined || publish === undefined
    ? undefined
    : keyOf(owner, container.id, publish, backendPort)
}

/** Whether there is something in its labels to look at. */
export const asksByLabel = ({ labels }: Container): boolean => labels.has(publishLabel)

/** What a container's own labels ask for. A label that is wrong publishes nothing at all of it: it may be the one that says whom to let in. */
export const wantedByLabels = (
  container: Container,
  labels: Labels,
  all: ReadonlyArray<Container>
): Wanted => {
  const asked = labels.get(publishLabel)
  if (asked === undefined || !container.running) return nothing
  const parsed = parsePolicy(labels)
  if (Result.isFailure(parsed)) return failure(container.name, watchOwner, parsed.failure.message)
  const place = placeOf(container, labels.get(networkLabel), all)
  if (Result.isFailure(place)) return failure(container.name, watchOwner, place.failure)
  const results = asked
    .split(",")
    .map((text) => text.trim())
    .map((text): Wanted => {
      const publish = parsePublish(text)
      if (Result.isFailure(publish)) return failure(container.name, watchOwner, publish.failure, text)
      return wantedBy(
        publish.success,
        { id: container.id, name: container.name, owner: watchOwner },
        labels,
        place.success
      )
    })
  return joined(results)
}

/** What is followed. A container that does not run, or is not there, is waited for. */
export const wantedByFollow = (follow: Follow, all: ReadonlyArray<Container>): Wanted => {
  const { id, name, owner } = follow
  const parsed = parsePublish(follow.publish)
  if (Result.isFailure(parsed)) return failure(name, owner, parsed.failure, follow.publish)
  const publish = parsed.success
  const labels = new Map(Object.entries(follow.labels))
  const container = followed(follow, all)
  const whose = { id, name: container?.name ?? name, owner }
  const place: Result.Result<Attachment, string> =
    container === undefined
      ? Result.fail(`there is no container ${name} now`)
      : container.running
        ? placeOf(container, labels.get(networkLabel), all)
        : Result.fail(`container ${container.name} is not running`)
  const without = new Set(follow.without)
  if (Result.isFailure(place)) {
    const waiting = wantedBy(publish, whose, labels, nowhere).wants
    return {
      wants: [],
      problems: waiting
        .filter(({ group }) => !without.has(backendPort(group)))
        .map((want) => ({
          name: whose.name,
          owner,
          publish: follow.publish,
          detail: place.failure,
          want,
          waiting: container?.running !== true
        }))
    }
  }
  const { wants, problems } = wantedBy(publish, whose, labels, place.success)
  return { wants: wants.filter(({ group }) => !without.has(backendPort(group))), problems }
}

export const followed = ({ id, name }: Follow, all: ReadonlyArray<Container>): Container | undefined =>
  all.find((container) => container.id === id) ?? all.find((container) => container.name === name)

/** By name, by id, or by the beginning of an id that is no other's. */
export const findContainer = (
  text: string,
  all: ReadonlyArray<Container>
): Result.Result<Container, string> => {
  const exact = all.find(({ id, name }) => name === text || id === text)
  if (exact !== undefined) return Result.succeed(exact)
  const beginning = /^[0-9a-f]+$/.test(text) ? all.filter(({ id }) => id.startsWith(text)) : []
  const [only, another] = beginning
  if (only === undefined) return Result.fail(`no such container: ${text}`)
  return another === undefined
    ? Result.succeed(only)
    : Result.fail(
        `${text} is the beginning of several containers' ids: ${beginning.map(({ name }) => name).join(", ")}`
      )
}

/**
 * Where a container is reached: in the network that is asked for; else in the one that it was made for, as long as it is in
 * it; else in the first by name. One that shares another's network is reached where that one is.
 */
export const placeOf = (
  container: Container,
  wanted: string | undefined,
  all: ReadonlyArray<Container>
): Result.Result<Attachment, string> => {
  const { networkMode } = container
  if (networkMode === "host")
    return Result.fail("it is in the host's own network, where its ports are the host's already")
  if (networkMode === "none") return Result.fail("it has no network (--network none)")
  if (networkMode.startsWith("container:")) {
    const id = networkMode.slice("container:".length)
    const other = all.find((candidate) => candidate.id === id)
    if (other?.running !== true)
      return Result.fail(`it shares the network of ${other?.name ?? shortId(id)}, which is not running`)
    return other.networkMode.startsWith("container:")
      ? Result.fail("it shares a shared network")
      : placeOf(other, wanted, all)
  }
  const reachable = container.attachments.filter(({ v4, v6 }) => v4 !== undefined || v6 !== undefined)
  const names = reachable.map(({ network }) => network).join(", ") || "none"
  if (wanted !== undefined) {
    const found = reachable.find(({ network, networkId }) => network === wanted || networkId === wanted)
    return found === undefined
      ? Result.fail(`${networkLabel}=${wanted}: it has no address in that network; its networks are ${names}`)
      : Result.succeed(found)
  }
  const home = networkMode === "default" ? "bridge" : networkMode
  const [first] = [...reachable].sort((a, b) => (a.network < b.network ? -1 : 1))
  const found = reachable.find(({ network, networkId }) => network === home || networkId === home) ?? first
  return found === undefined ? Result.fail("it has no address in any network") : Result.succeed(found)
}

/** What a want would be mapped to while its container has no address: never mapped, only told. */
const nowhere: Attachment = { network: "", networkId: "", v4: undefined, v6: undefined }

const wantedBy = (
  publish: Publish,
  { id, name, owner }: { readonly id: string; readonly name: string; readonly owner: string },
  labels: Labels,
  { v4, v6 }: Pick<Attachment, "v4" | "v6">
): Wanted => {
  const text = publishText(publish)
  const own = new Map([
    [containerLabel, `${name}/${shortId(id)}`] as const,
    ...[...labels].filter(([label]) => label !== containerLabel),
    [publishLabel, text] as const
  ])
  const groups = groupsOf(publish, v4 === undefined && v6 === undefined ? unknownAddress : { v4, v6 }, own)
  if (Result.isFailure(groups)) return failure(name, owner, groups.failure, text)
  return {
    wants: groups.success.map((group) => ({
      key: keyOf(owner, shortId(id), text, backendPort(group)),
      name,
      owner,
      group
    })),
    problems: []
  }
}

const backendPort = ({ entries }: Group): number => entries[0]?.backend.port ?? 0

const keyOf = (owner: string, id: string, publish: string, port: number): string =>
  `${owner} ${id} ${publish} ${port}`

const joined = (all: ReadonlyArray<Wanted>): Wanted => ({
  wants: all.flatMap(({ wants }) => wants),
  problems: all.flatMap(({ problems }) => problems)
})

const nothing: Wanted = { wants: [], problems: [] }

const failure = (name: string, owner: string, detail: string, publish?: string): Wanted => ({
  wants: [],
  problems: [{ name, owner, publish, detail, want: undefined, waiting: false }]
})

const none: Address = { text: "", family: 4, octets: new Uint8Array(4), zone: "", key: "" }
const unknownAddress = { v4: none, v6: undefined }
