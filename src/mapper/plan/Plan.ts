/**
 * Decides what a group needs of the host, entry by entry: what carries its traffic, what the answer says to the
 * Engine, and which entries can't be served and why. Pure: the same group under the same capabilities gives the
 * same plan.
 */
import { Result, Schema } from "effect"
import type { Rule } from "../../firewall/Firewall.ts"
import type { Admission } from "../../ports/HostSockets.ts"
import type { Hold } from "../../ports/PortAllocator.ts"
import { addressUnsafe, covers, isLoopback, isUnspecified } from "../../protocol/Address.ts"
import { type Entry, frontendText, type Group, type PortBinding } from "../../protocol/PortBinding.ts"
import type { Protocol } from "../../protocol/Protocol.ts"
import { type Issue, labelIssue, RequestError } from "../../protocol/RequestError.ts"
import type { Route } from "../../relay/Relay.ts"
import { type Mode, type Policy, type PortScope, parsePolicy } from "../model/Labels.ts"
import { type Mapping, type Resources, takesTraffic } from "../model/Mapping.ts"
import { interfaceIssues, limitsWithModes, policyOf } from "./LabelIssues.ts"
import { sleepIssues, waitingFor } from "./Waiting.ts"

/** What this host and this process can do. */
export interface Capabilities {
  /** The mode of calls that name none. */
  readonly defaultMode: Mode
  /** Why `nat` is not available; `undefined` where it is. */
  readonly natUnavailable: string | undefined
  /** Whether redirected packets carry a mark that the Engine accepts by a rule of its own. */
  readonly marksAccepted: boolean
  /** Whether the host has IPv6. */
  readonly ipv6: boolean
  /** What the relay can carry. */
  readonly relayed: ReadonlyArray<Protocol>
  /** The services that callers of every kind may join, by the label `portmapper.share=/NAME`. */
  readonly shares?: ReadonlyArray<string> | undefined
  /** Where ports are unique whose labels don't say; `undefined` on a host that is in no cluster. */
  readonly scope?: PortScope | undefined
}

export interface Plan {
  readonly policy: Policy
  readonly entries: ReadonlyArray<Planned>
}

export type Planned = Served | Discarded

export interface Served {
  readonly _tag: "Served"
  readonly entry: Entry
  readonly mode: Mode
  /** Whether it holds a host port. */
  readonly reserves: boolean
  /** Whether our kernel table redirects new connections to the backend. */
  readonly redirects: boolean
  /**
   * Whether the kernel drops outsiders' packets to a relayed port: from sources not allowed, or from all on a
   * loopback address.
   */
  readonly shields: boolean
  /** Which of its traffic the relay serves, if any. */
  readonly relays: Exclude<Admission, "nothing"> | undefined
  readonly allowForwarding: boolean
  readonly nat: boolean
}

export interface Discarded {
  readonly _tag: "Discarded"
  readonly entry: Entry
  readonly reason: string
}

/** The mode that the label requests is not available on this host. */
export class ModeUnavailable extends Schema.TaggedError<ModeUnavailable>()("ModeUnavailable", {
  mode: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `mode ${this.mode} is not available: ${this.detail}`
  }
}

/** No entry of the group could be served. */
export class NothingServed extends Schema.TaggedError<NothingServed>()("NothingServed", {
  reasons: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return [...new Set(this.reasons)].join("; ")
  }
}

export type PlanError = RequestError | ModeUnavailable | NothingServed

export const planGroup = (group: Group, capabilities: Capabilities): Result.Result<Plan, PlanError> =>
  Result.flatMap(policyOf(group.labels), (policy): Result.Result<Plan, PlanError> => {
    const mode = policy.mode ?? modeFor(group, policy, capabilities)
    const issues = [
      ...interfaceIssues(group.labels, mode),
      ...(mode === "routed" ? [] : selfMappingIssues(group)),
      ...shareIssues(group, mode, policy, capabilities),
      ...scopeIssues(policy, capabilities),
      ...sleepIssues(group, mode, policy)
    ]
    return issues.length > 0
      ? Result.fail(new RequestError({ issues }))
      : planIn(mode, group, policy, capabilities)
  })

/** The mode of a group that names none: the default one, if that has what its labels ask for. */
const modeFor = (group: Group, policy: Policy, { defaultMode }: Capabilities): Mode =>
  !needsRelay(group, policy) && limitsWithModes(policy).every(({ modes }) => modes.includes(defaultMode))
    ? defaultMode
    : "proxy"

/** Why a group can't share its port as its labels request, if it can't. */
const shareIssues = (
  { ports }: Group,
  mode: Mode,
  { share }: Policy,
  { shares = [] }: Capabilities
): ReadonlyArray<Issue> => {
  if (share === undefined) return []
  const refused = (rule: string) => [labelIssue("portmapper.share", share, rule)]
  if (ports._tag !== "Exact" || ports.port === 0)
    return refused("beside an exact host port, which the backends share")
  if (mode !== "nat" && mode !== "proxy") return refused(`beside mode nat or proxy (not ${mode})`)
  return share.startsWith("/") && !shares.includes(share.slice(1))
    ? refused(`a name of this host's \`serve --shares\` (${shares.join(", ") || "which has none"})`)
    : []
}

const scopeIssues = ({ scope }: Policy, capabilities: Capabilities): ReadonlyArray<Issue> =>
  scope === "cluster" && capabilities.scope === undefined
    ? [
        labelIssue(
          "portmapper.scope",
          scope,
          "host, or not given, on a host that is in no cluster (`serve --cluster`)"
        )
      ]
    : []

/** Plans an existing mapping again, in the mode it got before; the failure says why it can't be served. */
export const planAgain = (
  mapping: Mapping,
  capabilities: Capabilities
): Result.Result<{ readonly planned: Served; readonly policy: Policy }, string> => {
  const { port, labels, mode } = mapping
  const group: Group = { entries: [mapping], ports: { _tag: "Exact", port }, labels }
  const plan = Result.flatMap(parsePolicy(labels), (policy) => planIn(mode, group, policy, capabilities))
  if (Result.isFailure(plan)) return Result.fail(plan.failure.message)
  const [planned] = plan.success.entries
  return planned?._tag === "Served"
    ? Result.succeed({ planned, policy: plan.success.policy })
    : Result.fail(planned?.reason ?? "there is nothing to serve")
}

const planIn = (
  mode: Mode,
  group: Group,
  policy: Policy,
  capabilities: Capabilities
): Result.Result<Plan, PlanError> => {
  const unavailable = modeUnavailable(mode, capabilities)
  if (unavailable !== undefined) return Result.fail(new ModeUnavailable({ mode, detail: unavailable }))
  const entries = group.entries.map((entry) =>
    planEntry(entry, mode, capabilities, policy.idle !== undefined)
  )
  const reasons = entries.flatMap((planned) => (planned._tag === "Discarded" ? [planned.reason] : []))
  return reasons.length > 0 && reasons.length === entries.length
    ? Result.fail(new NothingServed({ reasons }))
    : Result.succeed({ policy, entries })
}

/** Only the relay sends the PROXY protocol's header, which TCP alone has. */
const needsRelay = ({ entries }: Group, { proxyProtocol }: Policy): boolean =>
  proxyProtocol !== undefined && entries.some(({ protocol }) => protocol === "tcp")

/** The kernel rules of one served entry on the port it got. */
const rulesOf = (
  { entry, redirects, relays, shields }: Served,
  { allow, rate }: Policy,
  mapping: Part
): ReadonlyArray<Rule> => {
  const frontend = { protocol: entry.protocol, host: entry.host, port: mapping.port }
  if (redirects) {
    const rest = { ...partOf(mapping), ...(rate === undefined ? {} : { rate }) }
    return [{ _tag: "Redirect", ...frontend, backend: entry.backend, allow, ...rest }]
  }
  if (!shields) return []
  if (isLoopback(entry.host)) return [{ _tag: "Guard", ...frontend }]
  return relays === "everything" && allow !== undefined ? [{ _tag: "Limit", ...frontend, allow }] : []
}

/** What rules and routes are made from besides the plan. */
type Part = Pick<Mapping, "port" | "share" | "drained" | "labels">

/** No property where there is none: most rules and routes have neither. */
const partOf = ({ share, ...mapping }: Part): Pick<Route, "share" | "idle"> => {
  if (share !== undefined) return { share }
  return takesTraffic(mapping) ? {} : { idle: true }
}

/** What the route of a redirected frontend admits: all of it while the kernel redirects nothing. */
export const admissionBeside = ({ share, idle }: Pick<Route, "share" | "idle">): Route["admits"] =>
  share?.idle || idle ? "everything" : "loopback"

/** The relay's route of one served entry, if it has one. */
const routeOf = (
  { entry, relays, redirects }: Served,
  hold: Hold,
  policy: Policy,
  mapping: Part
): Route | undefined =>
  relays === undefined
    ? undefined
    : {
        protocol: entry.protocol,
        host: entry.host,
        port: hold.port,
        socket: hold.socket,
        backend: entry.backend,
        admits: redirects ? admissionBeside(partOf(mapping)) : relays,
        allow: policy.allow,
        proxyProtocol: policy.proxyProtocol,
        udpIdle: policy.udpIdle,
        ...limited(policy),
        ...partOf(mapping),
        ...waitingFor(policy)
      }

/** No property where there are no limits. */
const limited = ({ connections, rate, ratePerSource }: Policy) =>
  connections === undefined && rate === undefined && ratePerSource === undefined
    ? {}
    : { limits: { connections, rate, ratePerSource } }

/** The host resources that one served entry takes, on the port it got. */
export const resourcesOf = (
  planned: Served,
  policy: Policy,
  mapping: Part,
  hold: Hold | undefined
): Resources => ({
  hold,
  rules: rulesOf(planned, policy, mapping),
  route: hold === undefined ? undefined : routeOf(planned, hold, policy, mapping),
  relayPending: false
})

/** The answer to one entry of a plan, on the port its group got. */
export const bindingOf = (planned: Planned, port: number): PortBinding => {
  const { entry } = planned
  if (planned._tag === "Discarded")
    return { entry, port, discarded: planned.reason, allowForwarding: false, nat: undefined }
  return {
    entry,
    port,
    discarded: undefined,
    allowForwarding: planned.allowForwarding,
    nat: planned.nat ? { address: entry.host, port } : undefined
  }
}

const modeUnavailable = (mode: Mode, { natUnavailable, relayed }: Capabilities): string | undefined => {
  if (mode === "nat") return natUnavailable
  if (mode === "proxy" && relayed.length === 0) return "this build has no relay"
  return undefined
}

const planEntry = (entry: Entry, mode: Mode, capabilities: Capabilities, isIdle: boolean): Planned => {
  if (mode !== "routed" && !capabilities.ipv6 && entry.host.family === 6 && isUnspecified(entry.host))
    return discarded(entry, "this host has no IPv6")
  switch (mode) {
    case "routed":
      return served(entry, { mode, reserves: false, allowForwarding: true })
    case "proxy":
      return relay(entry, mode, capabilities, "all traffic is relayed in this mode")
    case "nat":
    case "engine": {
      const why = notRedirectable(entry)
      if (why !== undefined) return relay(entry, mode, capabilities, why)
      const relays = capabilities.relayed.includes(entry.protocol) ? "loopback" : undefined
      if (mode === "engine" && isIdle)
        return relay(entry, mode, capabilities, "the Engine redirects nothing to an idle backend")
      return mode === "engine"
        ? served(entry, { mode, relays, allowForwarding: true, nat: true })
        : served(entry, { mode, relays, redirects: true, allowForwarding: !capabilities.marksAccepted })
    }
  }
}

const served = (
  entry: Entry,
  options: Pick<Served, "mode"> & { [K in keyof Served]?: Served[K] | undefined }
): Served => ({
  _tag: "Served",
  entry,
  mode: options.mode,
  reserves: options.reserves ?? true,
  redirects: options.redirects ?? false,
  shields: options.shields ?? false,
  relays: options.relays,
  allowForwarding: options.allowForwarding ?? false,
  nat: options.nat ?? false
})

const discarded = (entry: Entry, why: string): Discarded => {
  const frontend = frontendText({ protocol: entry.protocol, host: entry.host, port: 0 }).replace(":0/", "/")
  return { _tag: "Discarded", entry, reason: `${frontend} to ${entry.backend.address.text}: ${why}` }
}

const relay = (entry: Entry, mode: Mode, capabilities: Capabilities, why: string): Planned => {
  if (!capabilities.relayed.includes(entry.protocol))
    return discarded(entry, `${why}, and ${entry.protocol.toUpperCase()} is not relayed`)
  const shields = mode !== "proxy" && capabilities.natUnavailable === undefined
  return served(entry, {
    mode,
    shields,
    relays: isLoopback(entry.host) && !shields ? "loopback" : "everything"
  })
}

/** Why the kernel can't redirect a new connection from this frontend to its backend. */
const notRedirectable = ({ host, backend }: Entry): string | undefined => {
  if (host.family !== backend.address.family)
    return `the kernel redirects no IPv${host.family} traffic to IPv${backend.address.family}`
  if (isLoopback(host)) return "the kernel redirects nothing sent to a loopback address"
  if (isLoopback(backend.address) || isUnspecified(backend.address))
    return "the kernel redirects nothing to a loopback address"
  if (host.zone !== "" || backend.address.zone !== "")
    return "the kernel redirects nothing by link-local address"
  return undefined
}

/** One issue for each entry, in a group with an exact port, that leads to itself. */
export const selfMappingIssues = ({ entries, ports }: Group): ReadonlyArray<Issue> =>
  entries.flatMap((entry, index) => {
    if (ports._tag !== "Exact" || !leadsToItself(entry, ports.port)) return []
    const { protocol, host, backend } = entry
    const frontend = frontendText({ protocol, host, port: ports.port })
    return [
      {
        path: `Reqs[${index}].BackendPort`,
        value: `${backend.port}`,
        rule: `another port than FrontendPort, since ${frontend} takes in what is sent to ${backend.address.text}: the mapping would lead to itself`
      }
    ]
  })

/** Whether a connection to the backend arrives at the frontend, whatever addresses the host has. */
const leadsToItself = ({ host, backend: { address, port } }: Entry, frontendPort: number): boolean => {
  if (port !== frontendPort) return false
  // Connecting to the unspecified address reaches the loopback address of its family.
  const reached = isUnspecified(address) ? loopback[address.family] : address
  return isUnspecified(host) ? isLoopback(reached) && covers(host, reached) : host.key === reached.key
}

const loopback = { 4: addressUnsafe("127.0.0.1"), 6: addressUnsafe("::1") }
