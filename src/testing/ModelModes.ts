/**
 * How the traffic of one entry must be carried, mode by mode (docs/decisions 1, 2, 3, 10, 11), and what a mapper
 * may therefore hold of its host.
 */
import type { Capabilities } from "../mapper/plan/Plan.ts"
import { addressOf, frontend, frontendTextOf, protocols } from "./ModelAddress.ts"
import { idleState, isFrontendIdle, takesTraffic } from "./ModelIdle.ts"
import { balanceText, noSlots, withoutLag, withoutSlots } from "./ModelServices.ts"
import { beforeOf } from "./ModelStandby.ts"
import type { Model, ModelMapping } from "./ModelState.ts"
import type { HostHoldings, WireReq } from "./Target.ts"

type Labels = Readonly<Record<string, string>>

/** The mode that these labels request for these entries, or `undefined` where it is not available. */
export const modeOf = (
  labels: Labels,
  reqs: ReadonlyArray<Pick<WireReq, "Proto">>,
  capabilities: Capabilities
): string | undefined => {
  const asked = labels["portmapper.mode"] ?? "auto"
  const header = labels["portmapper.proxy-protocol"] !== undefined
  const relayed = header && reqs.some(({ Proto }) => protocols[Proto] === "tcp")
  const mode = asked !== "auto" ? asked : relayed ? "proxy" : capabilities.defaultMode
  if (mode === "nat" && capabilities.natUnavailable !== undefined) return undefined
  if (mode === "proxy" && capabilities.relayed.length === 0) return undefined
  return mode
}

/** The labels that affect the mapper, sorted. */
export const policyOf = (labels: Labels): string =>
  JSON.stringify(
    Object.entries(labels)
      .filter(([name]) => name.startsWith("portmapper."))
      .sort()
  )

/** The answer to one entry and how its traffic is carried; all of it but the port is known in advance. */
export interface Led {
  readonly discarded: true | undefined
  readonly allowForwarding: boolean
  /** The address that the Engine is to redirect. */
  readonly nat: string | undefined
  readonly rule: "Redirect" | "Guard" | "Limit" | undefined
  readonly admits: "loopback" | "everything" | undefined
  readonly allow: string
}

export const led = (
  req: Pick<WireReq, "Proto" | "FrontendIP" | "BackendIP">,
  mode: string,
  capabilities: Capabilities,
  labels: Labels
): Led => {
  const at = frontend(req.Proto, req.FrontendIP, req.BackendIP)
  const backend = frontend(req.Proto, req.BackendIP)
  const allow = labels["portmapper.allow"] ?? ""
  const answer = {
    discarded: undefined,
    allowForwarding: false,
    nat: undefined,
    rule: undefined,
    admits: undefined,
    allow
  } as const
  const relayed = capabilities.relayed.some((protocol) => protocol === protocols[req.Proto])
  if (mode === "routed") return { ...answer, allowForwarding: true }
  if (!capabilities.ipv6 && at.any && at.family === 6) return { ...answer, discarded: true }
  const elsewhere = !at.loopback && !at.zoned && !backend.loopback && !backend.zoned
  const left = mode === "proxy" || (mode === "engine" && labels["portmapper.idle"] !== undefined)
  const redirected = !left && at.family === backend.family && elsewhere
  if (redirected) {
    const admits = relayed ? "loopback" : undefined
    return mode === "engine"
      ? { ...answer, allowForwarding: true, nat: addressTextOf(req), admits }
      : { ...answer, allowForwarding: !capabilities.marksAccepted, rule: "Redirect", admits }
  }
  if (!relayed) return { ...answer, discarded: true }
  // Where the kernel's table is available it drops outsiders' packets to loopback ports, and to ports with an
  // allow-list.
  const shielded = mode !== "proxy" && capabilities.natUnavailable === undefined
  if (!shielded) return { ...answer, admits: at.loopback ? "loopback" : "everything" }
  return { ...answer, admits: "everything", rule: at.loopback ? "Guard" : allow === "" ? undefined : "Limit" }
}

/** Everything but the sockets, which may be shared, and what the list says of the Engine's epochs. */
export const mustHold = (model: Model, capabilities: Capabilities): Omit<HostHoldings, "sockets"> => {
  const rules: Array<string> = []
  const routes: Array<string> = []
  const stored: Array<string> = []
  const listed: Array<string> = []
  for (const mapping of model.mappings) {
    const text = frontendTextOf(mapping)
    // Without a host port, the requested address is meaningless.
    const where = mapping.mode === "routed" ? (protocols[mapping.proto] ?? "") : text
    const binding = `${where} -> ${mapping.backend} ${mapping.mode}`
    const balance = balanceText(mapping)
    stored.push(`${binding} ${mapping.recorded}${mapping.drained ? " drained" : ""}${balance}`)
    listed.push(`${binding} ${stateOf(mapping, model)}`)
    if (mapping.standing === "conflicted" || mapping.standby) continue
    const labels = mapping.allow === "" ? {} : { "portmapper.allow": mapping.allow }
    const asked = { Proto: mapping.proto, FrontendIP: mapping.key, BackendIP: mapping.backendIp }
    const { rule, admits } = led(asked, mapping.mode, capabilities, labels)
    const from = mapping.allow === "" ? "" : ofOneFamily(` from ${mapping.allow}`, mapping.family)
    if (rule === "Guard") rules.push(`Guard ${text}`)
    if (rule === "Limit") rules.push(`Limit ${text}${from}`)
    const takes = takesTraffic(mapping)
    if (rule === "Redirect" && takes) rules.push(`Redirect ${text} -> ${mapping.backend}${balance}${from}`)
    if (admits === undefined || mapping.unrelayed) continue
    const [idle, slotless] = mapping.share === undefined ? [" idle", ""] : ["", noSlots]
    const admitted = rule === "Redirect" && isFrontendIdle(model, mapping) ? "everything" : admits
    routes.push(
      `${text} -> ${mapping.backend}${takes ? balance : `${slotless}${balance}${idle}`} admits ${admitted}`
    )
  }
  // All backends of a service have its guard or its limit in common.
  return {
    rules: [...new Set(rules)].sort(),
    routes: routes.sort(),
    stored: stored.sort(),
    listed: listed.sort()
  }
}

/**
 * The visible resources that are held but should not be, or should be but are not; `undefined` where all is right.
 */
export const misheld = (
  model: Model,
  held: Partial<HostHoldings>,
  capabilities: Capabilities,
  /** A change failed since, so that the relay and the record may lag behind in a service. */
  failed: boolean
): string | undefined => {
  const must = mustHold(model, capabilities)
  for (const name of ["rules", "routes", "stored", "listed"] as const) {
    // The record of a backend in conflict may have its slots from before.
    const loosely = name === "stored" || (failed && name === "routes")
    const [seen, should] = [held[name], loosely ? must[name].map(withoutLag).sort() : must[name]]
    if (seen === undefined) continue
    const lines = seen.map(withoutSlots).map((line) => (loosely ? withoutLag(line) : line))
    const is = (name === "rules" ? lines.map((rule) => ofOneFamily(rule)) : lines).sort()
    if (is.length === should.length && is.every((line, index) => line === should[index])) continue
    const lacking = should.filter((line) => !is.includes(line))
    const spare = is.filter((line) => !should.includes(line))
    return `${name}: ${[...lacking.map((line) => `lacks ${line}`), ...spare.map((line) => `should not have ${line}`)].join("; ") || "the same line more than once"}`
  }
  return held.sockets === undefined ? undefined : missocketed(model, held.sockets)
}

/** Only the networks of the frontend's family in an allow-list matter, and some hosts keep no others. */
const ofOneFamily = (rule: string, family = rule.includes(" [") ? 6 : 4): string => {
  const [frontend = "", list] = rule.split(" from ")
  if (list === undefined) return rule
  const networks = list.split(",").filter((network) => network.includes(":") === (family === 6))
  return `${frontend} from ${networks.join(",") || "no network"}`
}

/**
 * Each host port must be held by a socket of its address or of the unspecified one, and no socket may be held for
 * nothing.
 */
const missocketed = (model: Model, sockets: ReadonlyArray<string>): string | undefined => {
  const needed = model.mappings.filter(
    ({ standing, standby, port }) => standing !== "conflicted" && !standby && port !== 0
  )
  const covering = (mapping: ModelMapping) => [
    frontendTextOf(mapping),
    frontendTextOf({ ...mapping, key: mapping.family === 4 ? "0.0.0.0" : "::" })
  ]
  const used = new Set<string>()
  for (const mapping of needed) {
    const found = covering(mapping).filter((socket) => sockets.includes(socket))
    if (found.length === 0) return `sockets: none holds ${frontendTextOf(mapping)}`
    for (const socket of found) used.add(socket)
  }
  const spare = sockets.find((socket) => !used.has(socket))
  return spare === undefined ? undefined : `sockets: ${spare} is held for nothing`
}

const stateOf = (mapping: ModelMapping, model: Model): string => {
  const { engine, nowMillis } = model
  if (mapping.standby) return beforeOf(model, mapping)?.standing === "conflicted" ? "conflicted" : "standby"
  if (mapping.standing !== "answered") return mapping.standing
  const stale =
    mapping.owner === "engine" && mapping.epoch < engine.epoch && nowMillis - engine.sinceMillis >= 60_000
  return stale ? "stale" : (idleState(mapping) ?? "live")
}

/** The address whose traffic the Engine redirects: as requested, or the unspecified one. */
const addressTextOf = ({
  Proto,
  FrontendIP,
  BackendIP
}: Pick<WireReq, "Proto" | "FrontendIP" | "BackendIP">): string =>
  FrontendIP === "" ? frontend(Proto, FrontendIP, BackendIP).key : addressOf(FrontendIP).text
