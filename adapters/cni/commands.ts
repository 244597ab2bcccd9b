/**
 * What each command does to published ports. Ports belong to the owner `cni:CONTAINERID/IFNAME`: commands release the
 * ports that this owner has, not those that a configuration lists.
 */
import { Array as Arr, Effect, Exit, Result, Scope, Struct } from "effect"
import { CurrentOwner, type Driver, groupsAtOnce } from "../../src/protocol/Driver.ts"
import type { ListPortsResponse, MapGroupsResponse } from "../../src/protocol/Messages.ts"
import { type Answer, call, failureOf, valueBody } from "../../src/protocol/Operations.ts"
import { CniError, codes } from "./CniError.ts"
import { type Attachment, ownerOf } from "./Environment.ts"
import { networkLabel } from "./NetworkConfig.ts"
import { isGone, namespaceLabel } from "./NetworkNamespace.ts"
import { bindingKey, frontendText, groupText, type WireEntry } from "./PortMappings.ts"

type Group = ReadonlyArray<WireEntry>
type Labels = Readonly<Record<string, string>>
type Listed = NonNullable<(typeof ListPortsResponse.Encoded)["Mappings"]>[number]
type Commanded = Effect.fn.Return<undefined, CniError, Driver | Scope.Scope>

/** Publishes all groups or none. Attachments that ended without a `DEL` give way. */
export const add = Effect.fnUntraced(function* (
  attachment: Attachment,
  groups: ReadonlyArray<Group>,
  labels: Labels
): Commanded {
  const owner = ownerOf(attachment)
  const publish = publishAll(owner, groups, labels)
  yield* Effect.catch(publish, (error) => {
    if (error.code !== codes.refused) return Effect.fail(error)
    const released = Effect.catch(releaseGone(groups), () => Effect.succeed(false))
    return Effect.flatMap(released, (any) => (any ? publish : Effect.fail(error)))
  })
})

/** As one delivery: a failed call undoes the calls before it. */
const publishAll = Effect.fnUntraced(function* (
  owner: string,
  groups: ReadonlyArray<Group>,
  labels: Labels
): Commanded {
  const delivery = yield* Scope.fork(yield* Effect.scope)
  const publish = (some: ReadonlyArray<Group>) =>
    ask("MapGroups", { Groups: some.map((Reqs) => ({ Reqs, Labels: labels })) }, owner).pipe(
      Effect.flatMap((answer) => refuseDiscarded(answer as typeof MapGroupsResponse.Encoded, some)),
      Effect.mapError((error) => ofGroup(error, some))
    )
  yield* Effect.forEach(Arr.chunksOf(groups, groupsAtOnce), publish, { discard: true }).pipe(
    Scope.provide(delivery),
    Effect.onError((cause) => Scope.close(delivery, Exit.failCause(cause)))
  )
})

/** Releases the ports that these groups want of attachments whose namespace is gone. */
const releaseGone = Effect.fnUntraced(function* (groups: ReadonlyArray<Group>) {
  const wanted = new Set(groups.flat().map(({ FrontendPort }) => FrontendPort))
  const gone = (yield* listOf("")).filter(
    ({ FrontendPort, Labels, Owner }) =>
      Owner.startsWith("cni:") && wanted.has(FrontendPort) && isGone(Labels?.[namespaceLabel] ?? "")
  )
  if (gone.length === 0) return false
  for (const owner of new Set(gone.map(({ Owner }) => Owner)))
    yield* Effect.logInfo(`releases ports of ${owner}: its network namespace is gone`)
  yield* release("cni:gc", gone)
  return true
})

/** Releases the attachment's ports; succeeds if it has none, or never had any. */
export const del = Effect.fnUntraced(function* (attachment: Attachment): Commanded {
  const owner = ownerOf(attachment)
  yield* release(owner, yield* listOf(owner))
})

/** Checks that everything that `ADD` published is still served. */
export const check = Effect.fnUntraced(function* (
  attachment: Attachment,
  groups: ReadonlyArray<Group>
): Commanded {
  const there = new Map((yield* listOf(ownerOf(attachment))).map((listed) => [bindingKey(listed), listed]))
  const problems = groups.flat().flatMap((entry) => {
    const listed = there.get(bindingKey(entry))
    if (listed === undefined) return [`${frontendText(entry)} is not published`]
    return listed.State === "conflicted"
      ? [`${frontendText(entry)} is not served, another process has taken its port`]
      : []
  })
  if (problems.length > 0)
    return yield* Effect.fail(
      new CniError(codes.missing, "ports are not published as they should be", problems.join("; "))
    )
})

/** Releases the ports of this network's attachments that are not among the valid ones. */
export const gc = Effect.fnUntraced(function* (network: string, valid: ReadonlyArray<Attachment>): Commanded {
  const owners = new Set(valid.map(ownerOf))
  const stale = (yield* listOf("")).filter(
    ({ Owner, Labels }) =>
      Owner.startsWith("cni:") && !owners.has(Owner) && Labels?.[networkLabel] === network
  )
  yield* release("cni:gc", stale)
})

/** Each call is limited to 10 s, and others wait for it. */
const releasedAtOnce = 500

/** Continues after a failed call; fails with the first error. */
const release = Effect.fnUntraced(function* (owner: string, listed: ReadonlyArray<Listed>): Commanded {
  const bindings = listed.map(
    Struct.pick(["Proto", "BackendIP", "BackendPort", "FrontendIP", "FrontendPort"])
  )
  const results = yield* Effect.forEach(Arr.chunksOf(bindings, releasedAtOnce), (some) =>
    Effect.result(Effect.asVoid(ask("UnmapPorts", { PortBindings: some, Labels: {} }, owner)))
  )
  yield* Effect.fromResult(results.find(Result.isFailure) ?? Result.void)
})

/** An owner's mappings; all owners' for `""`. */
const listOf = (owner: string) =>
  Effect.map(
    ask("ListPorts", { OwnedBy: owner }, owner || "cni:gc"),
    (answer): ReadonlyArray<Listed> => (answer as typeof ListPortsResponse.Encoded).Mappings ?? []
  )

const ask = (
  method: "MapGroups" | "UnmapPorts" | "ListPorts",
  request: object,
  owner: string
): Effect.Effect<Answer, CniError, Driver | Scope.Scope> =>
  call(`PortMapper.${method}`, valueBody(request)).pipe(
    Effect.provideService(CurrentOwner, owner),
    Effect.catchCause((cause) => {
      const { kind, message } = failureOf(cause)
      return Effect.fail(new CniError(codeOf[kind], message))
    })
  )

const codeOf = {
  request: codes.config,
  driver: codes.refused,
  notFound: codes.refused,
  defect: codes.internal
} as const

const refuseDiscarded = (
  { Groups }: typeof MapGroupsResponse.Encoded,
  groups: ReadonlyArray<Group>
): Effect.Effect<void, CniError> => {
  for (const [index, { PortBindings }] of (Groups ?? []).entries()) {
    const reasons = (PortBindings ?? []).flatMap(({ DiscardReq, Error: reason }) =>
      DiscardReq ? [reason ?? "no reason was given"] : []
    )
    if (reasons.length === 0) continue
    return Effect.fail(
      new CniError(codes.refused, reasons.join("; "), `publishing ${groupText(groups[index] ?? [])}`)
    )
  }
  return Effect.void
}

/** The port mapper names the group by its index; the error for the user names the port. */
const ofGroup = (error: CniError, groups: ReadonlyArray<Group>): CniError => {
  if (error.details !== "") return error
  const named = [...error.message.matchAll(/Groups\[(\d+)\](?:: |\.)/g)]
  const one = new Set(named.map(([, index]) => index)).size === 1
  const group = groups.length === 1 ? groups[0] : one ? groups[Number(named[0]?.[1])] : undefined
  if (group === undefined) return new CniError(error.code, error.message, `publishing ${groups.length} ports`)
  const message = named.reduce((text, [name]) => text.replace(name, ""), error.message)
  return new CniError(error.code, message, `publishing ${groupText(group)}`)
}
