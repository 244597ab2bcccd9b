/**
 * What each command does to published ports, whoever does the work. Ports belong to `cni:CONTAINERID/IFNAME`: what is taken
 * back is what its owner has, not what a configuration says it had.
 */
import type { Caller } from "./Caller.ts"
import { CniError, codes } from "./CniError.ts"
import { type Attachment, ownerOf } from "./Environment.ts"
import { isObject, type Json, networkLabel } from "./NetworkConfig.ts"
import { bindingKey, frontendText, groupText, type WireEntry } from "./PortMappings.ts"

type Group = ReadonlyArray<WireEntry>
type Labels = Readonly<Record<string, string>>

/** What `ListPorts` tells of a mapping, as far as it matters here. */
interface Listed extends Omit<WireEntry, "FrontendPortEnd"> {
  readonly Owner: string
  readonly State: string
  readonly Labels: Labels | null
}

/** Publishes all groups or none: what this call published is taken back when a later group is refused. */
export const add = async (
  caller: Caller,
  attachment: Attachment,
  groups: ReadonlyArray<Group>,
  labels: Labels
): Promise<void> => {
  const owner = ownerOf(attachment)
  const asked = new Set<string>()
  for (const some of inCalls(groups, labels)) {
    for (const entry of some.flat()) asked.add(bindingKey(entry))
    try {
      const request = { Groups: some.map((group) => ({ Reqs: group, Labels: labels })) }
      refuseDiscarded(await caller.call("MapGroups", request, owner), some)
    } catch (cause) {
      throw await undone(caller, owner, asked, failureOf(cause, some))
    }
  }
}

/** What the attachment has is released; that it has nothing, or never had, is fine. */
export const del = async (caller: Caller, attachment: Attachment): Promise<void> => {
  const owner = ownerOf(attachment)
  await release(caller, owner, await listOf(caller, owner))
}

/** Everything that `ADD` published must be served still. */
export const check = async (
  caller: Caller,
  attachment: Attachment,
  groups: ReadonlyArray<Group>
): Promise<void> => {
  const owner = ownerOf(attachment)
  const there = new Map((await listOf(caller, owner)).map((listed) => [bindingKey(listed), listed]))
  const problems = groups.flat().flatMap((entry) => {
    const listed = there.get(bindingKey(entry))
    if (listed === undefined) return [`${frontendText(entry)} is not published`]
    return listed.State === "conflicted"
      ? [`${frontendText(entry)} is not served, its port was taken by someone else`]
      : []
  })
  if (problems.length > 0)
    throw new CniError(codes.missing, "ports are not published as they should be", problems.join("; "))
}

/** Releases what attachments to this network have that are not among the valid ones. */
export const gc = async (
  caller: Caller,
  network: string,
  valid: ReadonlyArray<Attachment>
): Promise<void> => {
  const owners = new Set(valid.map(ownerOf))
  const stale = (await listOf(caller, undefined)).filter(
    ({ Owner, Labels }) =>
      Owner.startsWith("cni:") && !owners.has(Owner) && Labels?.[networkLabel] === network
  )
  await release(caller, "cni:gc", stale)
}

/** That somebody answers is all there is to know. */
export const status = async (caller: Caller): Promise<void> => {
  await caller.call("ListPorts", { OwnedBy: "cni:status" }, "cni:status")
}

/** Of groups or bindings: each call is bounded to 10 s, and a request to 1 MiB. A binding takes up to 300 bytes. */
const perCall = 500
const bytesPerCall = 1_000_000

/** Each group is sent with all labels, however long they are. */
const inCalls = (groups: ReadonlyArray<Group>, labels: Labels): ReadonlyArray<ReadonlyArray<Group>> => {
  const labelled = Buffer.byteLength(JSON.stringify(labels))
  const calls: Array<Array<Group>> = []
  let bytes = 0
  for (const group of groups) {
    const more = labelled + bytesOf(group)
    const last = calls.at(-1)
    if (last !== undefined && last.length < perCall && bytes + more <= bytesPerCall) {
      last.push(group)
      bytes += more
    } else {
      calls.push([group])
      bytes = more
    }
  }
  return calls
}

const bytesOf = (group: Group): number => 50 + 200 * group.length

/** Carries on past a call that fails, and tells the first of the failures. */
const release = async (caller: Caller, owner: string, listed: ReadonlyArray<Listed>): Promise<void> => {
  let failed: unknown
  for (let at = 0; at < listed.length; at += perCall) {
    const bindings = listed
      .slice(at, at + perCall)
      .map(({ Proto, BackendIP, BackendPort, FrontendIP, FrontendPort }) => ({
        Proto,
        BackendIP,
        BackendPort,
        FrontendIP,
        FrontendPort
      }))
    try {
      await caller.call("UnmapPorts", { PortBindings: bindings, Labels: {} }, owner)
    } catch (cause) {
      failed ??= cause
    }
  }
  if (failed !== undefined) throw failed
}

const listOf = async (caller: Caller, owner: string | undefined): Promise<ReadonlyArray<Listed>> => {
  const answer = await caller.call(
    "ListPorts",
    owner === undefined ? {} : { OwnedBy: owner },
    owner ?? "cni:gc"
  )
  const listed = (isObject(answer) ? (answer["Mappings"] ?? []) : []) as ReadonlyArray<Listed>
  // A plugin that does not know the question answers with everyone's.
  return owner === undefined ? listed : listed.filter(({ Owner }) => Owner === owner)
}

/** What of these bindings the attachment has by now is released; the failure says so where that failed as well. */
const undone = async (
  caller: Caller,
  owner: string,
  asked: ReadonlySet<string>,
  failure: CniError
): Promise<CniError> => {
  try {
    const made = (await listOf(caller, owner)).filter((listed) => asked.has(bindingKey(listed)))
    await release(caller, owner, made)
    return failure
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    return new CniError(
      failure.code,
      failure.message,
      `${failure.details}; what was published before it could not be taken back: ${why}`
    )
  }
}

const refuseDiscarded = (answer: unknown, groups: ReadonlyArray<Group>): void => {
  const answers: ReadonlyArray<unknown> =
    isObject(answer) && Array.isArray(answer["Groups"]) ? answer["Groups"] : []
  const bindings = answers.map((each) => (isObject(each) ? each["PortBindings"] : undefined))
  const whole = groups.every((group, index) => {
    const granted = bindings[index]
    return Array.isArray(granted) && granted.length === group.length
  })
  if (!whole)
    throw new CniError(codes.internal, "the port mapper did not answer each port that was asked for")
  bindings.forEach((granted, index) => {
    const reasons = (granted as ReadonlyArray<Json>).flatMap(({ DiscardReq, Error: reason }) =>
      DiscardReq === true ? [typeof reason === "string" ? reason : "no reason was given"] : []
    )
    if (reasons.length > 0) throw new CniError(codes.refused, `Groups[${index}]: ${reasons.join("; ")}`)
  })
}

/** The port mapper tells which of the groups it is; a person is told the port instead. */
const failureOf = (cause: unknown, groups: ReadonlyArray<Group>): CniError => {
  const { code, message, details } =
    cause instanceof CniError ? cause : new CniError(codes.internal, String(cause))
  const named = [...message.matchAll(/Groups\[(\d+)\](?:: |\.)/g)]
  const one = new Set(named.map(([, index]) => index)).size === 1
  const group = groups.length === 1 ? groups[0] : one ? groups[Number(named[0]?.[1])] : undefined
  const said = group === undefined ? message : named.reduce((text, [name]) => text.replace(name, ""), message)
  const which = group === undefined ? `publishing ${groups.length} ports` : `publishing ${groupText(group)}`
  return new CniError(code, said, details === "" ? which : `${which}: ${details}`)
}
