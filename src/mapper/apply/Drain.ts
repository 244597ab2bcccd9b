/**
 * Takes the traffic of a backend away, and gives it back: no new connection is led to it, what is established goes on.
 * Recorded with the mapping, and ends with it.
 */
import { Effect, Result, Schema } from "effect"
import type { DrainRequest } from "../../protocol/Driver.ts"
import { followedContainer, followedInterface } from "../../protocol/FollowLabels.ts"
import { frontendText, type PortBinding } from "../../protocol/PortBinding.ts"
import { namesHost, namesPorts, type Unpublish, unpublishText } from "../../protocol/PublishSyntax.ts"
import { asleepText, isRestingPlace } from "../../protocol/RestingPlace.ts"
import type { MapperContext } from "../MapperContext.ts"
import { isConflicted, type Mapping, type MappingEntry } from "../model/Mapping.ts"
import type { Update } from "../plan/Change.ts"
import { planAgain, resourcesOf } from "../plan/Plan.ts"
import { resourcesWith, sharesAfter } from "../plan/Services.ts"
import { changing } from "../steps/PortScope.ts"
import { type ApplyError, apply, undoing } from "./Apply.ts"

/** `detail` is a sentence about the backend and its ports. */
export class DrainRefused extends Schema.TaggedError<DrainRefused>()("DrainRefused", {
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/** Changes all mappings that the request names, or none. Returns them all, those that were so already included. */
export const drainIn = (
  context: MapperContext,
  request: DrainRequest
): Effect.Effect<ReadonlyArray<PortBinding>, DrainRefused | ApplyError> =>
  changing(
    context,
    undoing(
      Effect.fnUntraced(function* (undo, interruption) {
        const entries = yield* Effect.fromResult(named([...context.mappings.all()], request))
        const changed = entries.filter(({ mapping }) => (mapping.drained ?? false) !== request.drained)
        const updates = yield* Effect.fromResult(updatesOf(context, changed, request.drained))
        yield* Effect.mapError(
          apply(context, { evict: [], reserve: [], update: updates, reshare: [] }, undo),
          ({ error }) => error
        )
        yield* interruption
        return entries.map(({ mapping }) => bindingFor(mapping))
      })
    )
  )

/** The mappings that lead to the backend, by its ports if the request names some. */
const named = (
  all: ReadonlyArray<MappingEntry>,
  { backend, addresses = [], container = backend, ports }: DrainRequest
): Result.Result<ReadonlyArray<MappingEntry>, DrainRefused> => {
  const keys = new Set(addresses.map(({ key }) => key))
  const leading = all.filter(
    ({ mapping }) => keys.has(mapping.backend.address.key) || isOfContainer(mapping, container)
  )
  if (leading.length === 0) return refused(`nothing leads to ${backend}${backendsText(all)}`)
  const containers = new Set(leading.flatMap(({ mapping }) => containerNames(mapping)?.id ?? []))
  if (keys.size === 0 && containers.size > 1)
    return refused(`${backend} is ambiguous: it matches the containers ${[...containers].join(", ")}`)
  const missing = ports.find((port) => !leading.some(({ mapping }) => isAt(mapping, port)))
  if (missing !== undefined)
    return refused(
      `${unpublishText(missing)} does not lead to ${backend}, which has ${listText(leading.map(({ mapping }) => frontendText(mapping)))}`
    )
  return Result.succeed(
    ports.length === 0 ? leading : leading.filter(({ mapping }) => ports.some((port) => isAt(mapping, port)))
  )
}

const refused = (detail: string) => Result.fail(new DrainRefused({ detail }))

/** The name, where the mapping tells it, and the first 12 digits of the id. */
const containerNames = ({
  labels,
  container
}: Mapping): { readonly name: string | undefined; readonly id: string } | undefined => {
  const followed = followedContainer(labels)
  if (followed !== undefined) return followed
  const id = container?.split(" ")[1]?.slice(0, 12)
  return id === undefined ? undefined : { name: undefined, id }
}

/** By its name, or by at least 12 digits of its id: fewer may be the name of a container that has no mapping. */
const isOfContainer = (mapping: Mapping, text: string): boolean => {
  const names = containerNames(mapping)
  return names !== undefined && (names.name === text || names.id === text.slice(0, 12))
}

const isAt = ({ protocol, host, port, backend, labels }: Mapping, asked: Unpublish): boolean =>
  protocol === asked.protocol &&
  namesPorts(asked, port, backend.port) &&
  namesHost(asked, host, followedInterface(labels))

const backendsText = (all: ReadonlyArray<MappingEntry>): string => {
  const texts = all.map(({ mapping }) => {
    const { address } = mapping.backend
    const name = containerNames(mapping)?.name
    if (isRestingPlace(address)) return asleepText(name)
    return name === undefined ? address.text : `${address.text} (${name})`
  })
  return texts.length === 0 ? ": there are no backends" : `; there are ${listText(texts)}`
}

const mostNamed = 10

const listText = (texts: ReadonlyArray<string>): string => {
  const different = [...new Set(texts)]
  const more = different.length - mostNamed
  return `${different.slice(0, mostNamed).join(", ")}${more > 0 ? ` and ${more} more` : ""}`
}

/** The changed mappings, and the other backends of their services. */
const updatesOf = (
  context: MapperContext,
  entries: ReadonlyArray<MappingEntry>,
  drained: boolean
): Result.Result<ReadonlyArray<Update>, DrainRefused> => {
  const next = new Map(entries.map((entry) => [entry, withDrained(entry.mapping, drained)] as const))
  const shares = sharesAfter(context.mappings, next)
  const updates: Array<Update> = []
  for (const entry of new Set([...entries, ...shares.keys()])) {
    const share = shares.get(entry)
    const mapping = { ...(next.get(entry) ?? entry.mapping), ...(share === undefined ? {} : { share }) }
    const resources = resourcesAfter(context, entry, mapping)
    if (Result.isFailure(resources)) return refused(`${frontendText(mapping)}: ${resources.failure}`)
    updates.push({
      ...{ entry, mapping, status: entry.status, replaces: [] },
      ...{ resources: resources.success, record: true }
    })
  }
  return Result.succeed(updates)
}

const withDrained = ({ drained: _, ...mapping }: Mapping, drained: boolean): Mapping =>
  drained ? { ...mapping, drained } : mapping

const resourcesAfter = (
  { capabilities }: MapperContext,
  entry: MappingEntry,
  mapping: Mapping
): Result.Result<MappingEntry["resources"], string> => {
  if (mapping.mode === "engine" || mapping.mode === "routed")
    return Result.fail(
      `mode ${mapping.mode} leads to its backend without this plugin; it needs mode nat or proxy`
    )
  if (isConflicted(entry) || mapping.standby) return Result.succeed(entry.resources)
  if (mapping.share !== undefined) return Result.succeed(resourcesWith(entry.resources, mapping.share))
  return Result.map(planAgain(mapping, capabilities), ({ planned, policy }) =>
    resourcesOf(planned, policy, mapping, entry.resources.hold)
  )
}

const bindingFor = (mapping: Mapping): PortBinding => {
  const { protocol, host, requestedAddress, backend, port } = mapping
  return {
    entry: { protocol, host, requestedAddress, backend },
    port,
    discarded: undefined,
    allowForwarding: false,
    nat: undefined
  }
}
