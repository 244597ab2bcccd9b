/**
 * Converts a wire message to the types of `PortBinding.ts`, or returns every rule it breaks. Decides only what the
 * request itself shows; the driver decides what depends on the state of the host.
 */
import { Result } from "effect"
import {
  type Address,
  covers,
  hostText,
  isLinkLocal,
  isMulticastOrBroadcast,
  isUnspecified,
  parseAddress,
  unspecified
} from "./Address.ts"
import type { DrainRequest, FollowRequest, InterfaceRequest } from "./Driver.ts"
import { mostOfRanges, releasedOfRange, sizeOf } from "./FullRange.ts"
import { preview } from "./GoJson.ts"
import { interfaceIn, interfaceLabel, parseLabelled } from "./InterfaceLabel.ts"
import type {
  FollowContainerRequest,
  FollowInterfaceRequest,
  MapGroupsRequest,
  MapPortsRequest,
  PortBindingReq,
  UnmapPortsRequest,
  DrainRequest as WireDrainRequest,
  WireReleasedBinding
} from "./Messages.ts"
import {
  type Entry,
  endpointText,
  type Group,
  type Labels,
  type PortRequest,
  type Release,
  type ReleasedBinding,
  rangeFrontendText,
  sameBackend
} from "./PortBinding.ts"
import type { PortRange } from "./PortRange.ts"
import { protocolOfNumber } from "./Protocol.ts"
import { type Publish, parseUnpublish, publishForm, tooManyPorts, unpublishForm } from "./PublishSyntax.ts"
import { type Issue, mostIssues, RequestError } from "./RequestError.ts"

/**
 * A group without entries requests nothing; its `ports` are meaningless. If the group requests a full range
 * (`fullRangeOf`), its `ports` are that range.
 */
export const groupOf = (request: typeof MapPortsRequest.Type): Result.Result<Group, RequestError> => {
  const reqs = request.Reqs ?? []
  const issues: Array<Issue> = []
  const entries: Array<Entry | undefined> = []
  const ports: Array<PortRequest | undefined> = []
  reqs.forEach((req, index) => {
    const found = issues.length
    entries.push(entryOf(req, `Reqs[${index}]`, issues))
    const asked = portsOf(req, `Reqs[${index}]`, issues)
    ports.push(asked)
    if (found === issues.length && index > 0) checkSamePorts(reqs, ports, index, issues)
  })
  checkFrontends(reqs, entries, issues)
  checkRange(reqs, issues)
  return unless(issues, {
    entries: entries.filter((entry) => entry !== undefined),
    ports: ports[0] ?? { _tag: "Ephemeral" },
    labels: request.Labels ?? noLabels
  })
}

/** All ports of this range are requested; `undefined` if one port is. */
export const fullRangeOf = ({ Reqs }: typeof MapPortsRequest.Type): PortRange | undefined => {
  const [req] = Reqs ?? []
  return req?.FullRange === true && req.FrontendPort < req.FrontendPortEnd
    ? { first: req.FrontendPort, last: req.FrontendPortEnd }
    : undefined
}

/** Reports every rule that any of the groups breaks; with many bad groups, those of the first ones. */
export const groupsOf = ({
  Groups: requests
}: typeof MapGroupsRequest.Type): Result.Result<ReadonlyArray<Group>, RequestError> => {
  const issues: Array<Issue> = []
  const groups = (requests ?? []).flatMap((request, index) => {
    if (issues.length >= mostIssues) return []
    if (fullRangeOf(request) !== undefined)
      issues.push({
        path: `${groupPath(index)}.Reqs[0].FullRange`,
        value: preview(true),
        rule: "false in MapGroups, which takes a group for each port"
      })
    const group = groupOf(request)
    if (Result.isSuccess(group)) return [group.success]
    issues.push(...issuesOfGroup(index, group.failure.issues))
    return []
  })
  return unless(issues, groups)
}

/** The name of one of several groups in errors. */
export const groupPath = (index: number): string => `Groups[${index}]`

export const issuesOfGroup = (index: number, issues: ReadonlyArray<Issue>): ReadonlyArray<Issue> =>
  issues.map((issue) => ({ ...issue, path: `${groupPath(index)}.${issue.path}` }))

/**
 * Labels never refuse a release, nor does a binding that could not have been mapped (a multicast address, say):
 * what is not mapped counts as released. Refused is only what identifies no binding: an unknown protocol; neither a
 * frontend address nor a backend to take its family from; neither a host port nor a backend to identify the binding
 * (a mapping in `routed` mode has no host port).
 */
export const releaseOf = (request: typeof UnmapPortsRequest.Type): Result.Result<Release, RequestError> => {
  const issues: Array<Issue> = []
  let ports = 0
  const bindings = (request.PortBindings ?? []).flatMap((binding, index) => {
    const released = releasedOf(binding, `PortBindings[${index}]`, issues)
    const { FullRange, FrontendPort: first, FrontendPortEnd: last = 0 } = binding
    const isRange = FullRange === true && first !== 0 && first < last
    ports += isRange ? sizeOf({ first, last }) : 1
    if (released === undefined || ports > mostOfRanges) return []
    return isRange ? releasedOfRange(released, last) : [released]
  })
  if (ports > mostOfRanges)
    issues.push({
      path: "PortBindings",
      value: `${ports} ports`,
      rule: `at most ${mostOfRanges} ports in all`
    })
  return unless(issues, { bindings, labels: request.Labels ?? noLabels })
}

/** Requires a container and something to publish; each `-p` must be one that Docker accepts. */
export const followOf = ({
  Container,
  ...asked
}: typeof FollowContainerRequest.Type): Result.Result<FollowRequest, RequestError> => {
  const issues: Array<Issue> = []
  if (!isName(Container))
    issues.push({ path: "Container", value: preview(Container), rule: `a container's name or id${bounded}` })
  const { publish, labels } = publishedBy(asked, issues)
  return unless(issues, { container: Container, publish, labels })
}

/** Requires a backend address, one of a family at most, and an interface for each `-p`. */
export const followInterfaceOf = ({
  To,
  ...asked
}: typeof FollowInterfaceRequest.Type): Result.Result<InterfaceRequest, RequestError> => {
  const issues: Array<Issue> = []
  if ((To ?? []).length === 0)
    issues.push({ path: "To", value: preview([]), rule: "the container's address, or one of each family" })
  const to = (To ?? []).flatMap((text, index) => {
    const address = Result.getOrUndefined(parseAddress(text))
    const rule = backendRule(address)
    if (rule !== undefined) issues.push({ path: `To[${index}]`, value: preview(text), rule })
    return address === undefined ? [] : [address]
  })
  if (to.length > 1 && to[0]?.family === to[1]?.family)
    issues.push({ path: "To[1]", value: preview(to[1]?.text), rule: "of another family than To[0]" })
  const { publish, labels } = publishedBy(asked, issues)
  publish.forEach(({ interfaceName }, index) => {
    if (interfaceName !== undefined) return
    const rule = `INTERFACE:PORT:CONTAINERPORT, or be published with the label ${interfaceLabel}`
    issues.push({ path: `Publish[${index}]`, value: preview(asked.Publish?.[index]), rule })
  })
  return unless(issues, {
    to: { v4: to.find(({ family }) => family === 4), v6: to.find(({ family }) => family === 6) },
    publish,
    labels
  })
}

/** What is to be published, at the interface that the label names, if there is one; and the other labels. */
const publishedBy = (
  { Publish: texts, Labels: given }: Omit<typeof FollowContainerRequest.Type, "Container">,
  issues: Array<Issue>
): { readonly publish: ReadonlyArray<Publish>; readonly labels: Labels } => {
  if ((texts ?? []).length === 0)
    issues.push({ path: "Publish", value: preview([]), rule: `at least one ${publishForm}` })
  const labelled = interfaceIn(given ?? noLabels)
  if (Result.isFailure(labelled)) {
    issues.push(...labelled.failure.issues)
    return { publish: [], labels: noLabels }
  }
  const { interfaceName, others: labels } = labelled.success
  const parse = (text: string) => parseLabelled(text, interfaceName)
  const publish = parsedOf({ field: "Publish", form: publishForm }, texts, parse, issues)
  const tooMany = tooManyPorts(publish)
  if (tooMany !== undefined) issues.push({ path: "Publish", value: preview(texts), rule: tooMany })
  return { publish, labels }
}

/** Requires a backend; each of the ports must be one that `unmap -p` accepts. */
export const drainOf = (
  { Backend: backend, Ports }: typeof WireDrainRequest.Type,
  drained: boolean
): Result.Result<DrainRequest, RequestError> => {
  const issues: Array<Issue> = []
  if (!isName(backend))
    issues.push({
      path: "Backend",
      value: preview(backend),
      rule: `a container's name or id, or an address${bounded}`
    })
  const ports = parsedOf({ field: "Ports", form: unpublishForm }, Ports, parseUnpublish, issues)
  const address = Result.getOrUndefined(parseAddress(backend))
  return unless(issues, { backend, addresses: address === undefined ? [] : [address], ports, drained })
}

/** A name or an address that errors and lists repeat. */
const longestName = 255
const isName = (text: string): boolean => text !== "" && text.length <= longestName
const bounded = `, of at most ${longestName} characters`

/** Those of a field's texts that can be parsed; adds an issue for each of the others. */
const parsedOf = <A>(
  { field, form }: { readonly field: string; readonly form: string },
  texts: ReadonlyArray<string> | null,
  parse: (text: string) => Result.Result<A, string>,
  issues: Array<Issue>
): ReadonlyArray<A> =>
  (texts ?? []).flatMap((text, index) => {
    const parsed = parse(text)
    if (Result.isSuccess(parsed)) return [parsed.success]
    const why = parsed.failure.replace(`; expected ${form}`, "")
    const rule = why === `expected ${form}` ? form : `${form} (${why})`
    issues.push({ path: `${field}[${index}]`, value: preview(text), rule })
    return []
  })

const unless = <A>(issues: ReadonlyArray<Issue>, value: A): Result.Result<A, RequestError> =>
  issues.length > 0 ? Result.fail(new RequestError({ issues })) : Result.succeed(value)

const noLabels: Labels = new Map()

const knownProtocols = "6 (tcp), 17 (udp) or 132 (sctp)"

const entryOf = (req: typeof PortBindingReq.Type, path: string, issues: Array<Issue>): Entry | undefined => {
  const broken = issues.length
  const protocol = protocolOfNumber(req.Proto)
  if (protocol === undefined) issues.push(issue(path, "Proto", req.Proto, knownProtocols))

  const backend = req.BackendIP
  const rule = backendRule(backend)
  if (rule !== undefined) issues.push(issue(path, "BackendIP", backend, rule))
  if (req.BackendPort === 0) issues.push(issue(path, "BackendPort", 0, "an integer from 1 to 65535"))

  const frontend = req.FrontendIP
  if (frontend !== undefined) {
    if (isMulticastOrBroadcast(frontend)) {
      issues.push(
        issue(path, "FrontendIP", frontend, "an address of this host, a unicast or the unspecified one")
      )
    } else if (!zoneFits(frontend)) {
      issues.push(issue(path, "FrontendIP", frontend, zoneRule))
    }
  }
  if (issues.length > broken || protocol === undefined || backend === undefined) return undefined
  return {
    protocol,
    host: frontend ?? unspecified(backend.family),
    requestedAddress: frontend?.text ?? "",
    backend: { address: backend, port: req.BackendPort }
  }
}

/** The rule that the address breaks as a backend's. */
const backendRule = (address: Address | undefined): string | undefined => {
  if (address === undefined || isUnspecified(address) || isMulticastOrBroadcast(address))
    return "the address of the container, a unicast one"
  return zoneFits(address) ? undefined : zoneRule
}

const zoneRule = "a link-local IPv6 address where it has a zone"

const zoneFits = (address: Address): boolean =>
  address.zone === "" || (address.family === 6 && isLinkLocal(address))

const portsOf = (
  { FrontendPort: first, FrontendPortEnd: last }: typeof PortBindingReq.Type,
  path: string,
  issues: Array<Issue>
): PortRequest | undefined => {
  if (first === last) return first === 0 ? { _tag: "Ephemeral" } : { _tag: "Exact", port: first }
  if (first !== 0 && first < last) return { _tag: "Range", first, last }
  const rule = first === 0 ? "0 where FrontendPort is 0 (any free port)" : `at least FrontendPort, ${first}`
  issues.push(issue(path, "FrontendPortEnd", last, rule))
  return undefined
}

/** All entries of a group get one port, so each must request the same port as the first. */
const checkSamePorts = (
  reqs: ReadonlyArray<typeof PortBindingReq.Type>,
  ports: ReadonlyArray<PortRequest | undefined>,
  index: number,
  issues: Array<Issue>
): void => {
  const [first, req] = [reqs[0], reqs[index]]
  if (first === undefined || req === undefined || ports[0] === undefined || ports[index] === undefined) return
  const differing = (["FrontendPort", "FrontendPortEnd", "FullRange"] as const).find(
    (name) => (first[name] ?? false) !== (req[name] ?? false)
  )
  if (differing === undefined) return
  const rule = `${first[differing] ?? false} as in Reqs[0], since the entries of one group get the same port`
  issues.push(issue(`Reqs[${index}]`, differing, req[differing], rule))
}

/** The last port of a full range needs a backend port, too; the number of all is bounded. */
const checkRange = (reqs: ReadonlyArray<typeof PortBindingReq.Type>, issues: Array<Issue>): void => {
  const range = fullRangeOf({ Reqs: reqs, Labels: null })
  if (range === undefined) return
  const size = sizeOf(range)
  reqs.forEach(({ BackendPort: port }, index) => {
    const most = 65_536 - size
    if (port > most)
      issues.push(
        issue(`Reqs[${index}]`, "BackendPort", port, `at most ${most}, since the range has ${size} ports`)
      )
  })
  const most = Math.floor(mostOfRanges / reqs.length)
  if (size > most) {
    const rule = `at most ${range.first + most - 1}, since a full range of ${reqs.length} entries has at most ${most} ports`
    issues.push(issue("Reqs[0]", "FrontendPortEnd", range.last, rule))
  }
}

/**
 * Refuses a repeated frontend, and a frontend that covers another with a different backend. Linear: only the
 * unspecified address of a family covers another frontend.
 */
const checkFrontends = (
  reqs: ReadonlyArray<typeof PortBindingReq.Type>,
  entries: ReadonlyArray<Entry | undefined>,
  issues: Array<Issue>
): void => {
  if (entries.length < 2) return
  const byFrontend = new Map<string, number>()
  entries.forEach((entry, index) => {
    if (entry === undefined) return
    const frontend = `${entry.protocol} ${entry.host.key}`
    const before = byFrontend.get(frontend)
    if (before === undefined) byFrontend.set(frontend, index)
    else {
      const rule = `another frontend than that of Reqs[${before}]`
      const backends = [
        ...new Set([entries[before] ?? entry, entry].map(({ backend }) => endpointText(backend)))
      ]
      const text = `${askedText(entry, reqs[index])} is requested twice, for ${backends.join(" and for ")}`
      issues.push({ ...issue(`Reqs[${index}]`, "FrontendIP", reqs[index]?.FrontendIP, rule), text })
    }
  })
  entries.forEach((entry, index) => {
    if (entry === undefined || isUnspecified(entry.host)) return
    const covering = byFrontend.get(`${entry.protocol} ${unspecified(entry.host.family).key}`)
    const holder = covering === undefined ? undefined : entries[covering]
    if (
      holder === undefined ||
      !covers(holder.host, entry.host) ||
      sameBackend(holder.backend, entry.backend)
    )
      return
    const rule = `for the backend of Reqs[${covering}], whose frontend covers it`
    const text = `${askedText(entry, reqs[index])} is requested for ${endpointText(entry.backend)}, and ${askedText(holder, reqs[index])}, which covers it, for ${endpointText(holder.backend)}`
    issues.push({ ...issue(`Reqs[${index}]`, "FrontendIP", entry.host, rule), text })
  })
}

/** The frontend as it was requested: `0.0.0.0:8080/tcp`, `0.0.0.0:8000-8010/tcp`, `0.0.0.0/tcp` for any port. */
const askedText = (
  { protocol, host }: Entry,
  { FrontendPort: first, FrontendPortEnd: last } = { FrontendPort: 0, FrontendPortEnd: 0 }
): string =>
  last === 0 ? `${hostText(host)}/${protocol}` : rangeFrontendText(protocol, host, { first, last })

const releasedOf = (
  binding: typeof WireReleasedBinding.Type,
  path: string,
  issues: Array<Issue>
): ReleasedBinding | undefined => {
  const broken = issues.length
  const protocol = protocolOfNumber(binding.Proto)
  if (protocol === undefined) issues.push(issue(path, "Proto", binding.Proto, knownProtocols))
  const backend = { address: binding.BackendIP, port: binding.BackendPort }
  if (binding.FrontendPort === 0 && (backend.address === undefined || backend.port === 0)) {
    issues.push(issue(path, "FrontendPort", 0, "an integer from 1 to 65535 where no backend is named"))
  }
  const host = binding.FrontendIP ?? (backend.address && unspecified(backend.address.family))
  if (host === undefined)
    issues.push(issue(path, "FrontendIP", undefined, "an address where no backend is named"))
  if (issues.length > broken || protocol === undefined || host === undefined) return undefined
  return { protocol, host, port: binding.FrontendPort, backend }
}

const issue = (
  path: string,
  name: string,
  value: Address | number | boolean | undefined,
  rule: string
): Issue => ({
  path: `${path}.${name}`,
  value: preview(typeof value === "object" ? value.text : (value ?? "")),
  rule
})
