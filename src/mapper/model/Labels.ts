/**
 * The labels that configure a call: `portmapper.mode`, `portmapper.allow`, `portmapper.proxy-protocol`,
 * `portmapper.udp-idle`, the limits, `portmapper.share`, `portmapper.balance`, `portmapper.scope`,
 * `portmapper.wait-healthy`, `portmapper.idle`, and those of a container that sleeps. Ignores labels of other programs;
 * an unknown label under `portmapper.`, in any case, is an error.
 */
import { Duration, Option, Result } from "effect"
import type { IpNetwork } from "effect/net"
import { parseNetwork } from "../../protocol/Address.ts"
import { containerLabel, toLabel } from "../../protocol/FollowLabels.ts"
import { interfaceLabel } from "../../protocol/InterfaceLabel.ts"
import { type Limits, noLimits } from "../../protocol/Limits.ts"
import type { Labels } from "../../protocol/PortBinding.ts"
import { type Issue, labelIssue, RequestError } from "../../protocol/RequestError.ts"
import { type Balance, maxMembers } from "../../protocol/Slots.ts"

/**
 * How traffic reaches a backend. `nat`: our kernel table redirects. `engine`: the answer requests that the Engine
 * redirect. `proxy`: userland relay only. `routed`: no host port, the Engine only lets forwarded traffic in.
 */
export type Mode = "nat" | "engine" | "proxy" | "routed"
export const modes: ReadonlyArray<Mode> = ["nat", "engine", "proxy", "routed"]

/** Where a port is unique. */
export type PortScope = "cluster" | "host"
/**
 * Why a mapping keeps its port without traffic. `waiting`: its backend is not ready. `asleep`: its container does not
 * run, and a client starts it. `waking`: it is being started. `failed`: it did not come up, and is asleep until the next
 * attempt, with clients refused.
 */
export type Idle = "waiting" | "asleep" | "waking" | "failed"
export const idleStates: ReadonlyArray<Idle> = ["waiting", "asleep", "waking", "failed"]
/** Set by the caller that knows the backend, such as `portmapper watch`. */
export const idleLabel = "portmapper.idle"

export interface Policy extends Limits {
  /** `undefined`: the plugin's default. */
  readonly mode?: Mode | undefined
  /** The allowed sources; `undefined` allows all. An address without a prefix length means that address alone. */
  readonly allow?: ReadonlyArray<IpNetwork.IpNetwork> | undefined
  readonly proxyProtocol?: "v1" | "v2" | undefined
  readonly udpIdle?: Duration.Duration | undefined
  /** The service that the mapping joins: `web`, `PROJECT/web`, or `/web`, which all callers of this host may join. */
  readonly share?: string | undefined
  readonly balance?: Balance | undefined
  /** Whether a client wakes the container; see adapters/engine/Sleeper.ts. */
  readonly wake: boolean
  /** How long a client waits for the container that it wakes; 30 seconds. */
  readonly wakeTimeout?: Duration.Duration | undefined
  /** How many containers of a service a client wakes; 1. */
  readonly wakeCount?: number | undefined
  /** The container is stopped after this long without a connection. */
  readonly sleep?: Duration.Duration | undefined
  /** `undefined`: the plugin's default. */
  readonly scope?: PortScope | undefined
  /** How long a client waits while no backend takes connections; `undefined`: it is refused at once. */
  readonly waitHealthy?: Duration.Duration | undefined
  /** The backend takes no new connections. */
  readonly idle?: Idle | undefined
}

export const noPolicy: Policy = { ...noLimits, wake: false }

/**
 * The most bytes of all `portmapper.*` labels of one mapping, names and values: they are recorded and listed with
 * it.
 */
export const maxLabelBytes = 16 * 1024

/** The most prefixes in one `portmapper.allow`. */
export const maxPrefixes = 1000

/**
 * `health`, those of sleep, `publish` and `network` are for `portmapper watch`; `MapPorts` checks and ignores them, and
 * refuses `interface`.
 */
export const labelNames = [
  ...["mode", "allow", "proxy-protocol", "udp-idle", "connections", "rate", "rate-per-source"],
  ...["share", "balance", "scope", "health", "wait-healthy", "publish", "network", "interface"],
  ...["wake", "wake-timeout", "wake-count", "sleep"]
] as const

const known = labelNames.map((name) => `portmapper.${name}`)

/** Labels that the plugin sets itself for what it follows. */
export const setForFollowed: ReadonlyArray<string> = [idleLabel, containerLabel, toLabel]

/** Those, and the ones that the CNI plugin sets. */
const written = [...setForFollowed, "portmapper.cni-network", "portmapper.cni-netns"]

export const isOwnLabel = (name: string): boolean => /^portmapper\./i.test(name)

export const isUnknownLabel = (name: string): boolean =>
  isOwnLabel(name) && !known.includes(name) && !written.includes(name)

export const parsePolicy = (labels: Labels): Result.Result<Policy, RequestError> => {
  let policy = noPolicy
  const issues: Array<Issue> = []
  const own = ownLabels(labels)
  const bytes = bytesOf(own)
  if (bytes > maxLabelBytes) {
    const [value, rule] = [`${bytes} bytes of portmapper.* labels`, `at most ${maxLabelBytes} bytes of them`]
    return Result.fail(new RequestError({ issues: [{ path: "Labels", value, rule }] }))
  }
  for (const [name, value] of own) {
    const parsed = parseLabel(name, value)
    if (Result.isSuccess(parsed)) policy = { ...policy, ...parsed.success }
    else issues.push(labelIssue(name, value, parsed.failure))
  }
  return issues.length === 0 ? Result.succeed(policy) : Result.fail(new RequestError({ issues }))
}

/** The labels that the mapper reads, out of all labels of the container that an Engine sends. */
export const ownLabels = (labels: Labels): Labels =>
  labels.size === 0 ? labels : new Map([...labels].filter(([name]) => isOwnLabel(name)))

/** The labels that affect the mapper, sorted, as one text: equal texts mean equal policies. */
export const policyText = (labels: Labels): string => {
  const own = ownLabels(labels)
  return own.size === 0 ? "" : JSON.stringify([...own].sort(([a], [b]) => (a < b ? -1 : 1)))
}

const bytesOf = (labels: Labels): number =>
  labels.size === 0 ? 0 : new TextEncoder().encode([...labels].flat().join("")).length

const parseLabel = (name: string, value: string): Result.Result<Partial<Policy>, string> => {
  switch (name) {
    case "portmapper.mode":
      return parseMode(value)
    case "portmapper.allow":
      return Result.map(parseNetworks(value), (allow) => ({ allow }))
    case "portmapper.proxy-protocol":
      return value === "v1" || value === "v2"
        ? Result.succeed({ proxyProtocol: value })
        : Result.fail("v1 or v2")
    case "portmapper.udp-idle":
      return Result.map(parseIdle(value), (udpIdle) => ({ udpIdle }))
    case "portmapper.connections":
      return Result.map(parseLimit(value, ""), (connections) => ({ connections }))
    case "portmapper.rate":
      return Result.map(parseLimit(value, "/s"), (rate) => ({ rate }))
    case "portmapper.rate-per-source":
      return Result.map(parseLimit(value, "/s"), (ratePerSource) => ({ ratePerSource }))
    case "portmapper.share":
      return sharePattern.test(value)
        ? Result.succeed({ share: value })
        : Result.fail(
            "a name of at most 64 letters, digits, `_`, `.` and `-`, the first a letter or digit; /NAME is the whole host's"
          )
    case "portmapper.balance":
      return value === "random" || value === "source"
        ? Result.succeed({ balance: value })
        : Result.fail("random or source")
    case "portmapper.scope":
      return value === "cluster" || value === "host"
        ? Result.succeed({ scope: value })
        : Result.fail("cluster or host")
    case "portmapper.health":
      return value === "follow" || value === "ignore" ? Result.succeed({}) : Result.fail("follow or ignore")
    case "portmapper.wake":
      return value === "on" || value === "off"
        ? Result.succeed({ wake: value === "on" })
        : Result.fail("on or off")
    case "portmapper.wake-timeout":
      return Result.map(
        Result.flatMap(parseWait(value), () => parseIdle(value)),
        (wakeTimeout) => ({ wakeTimeout })
      )
    case "portmapper.wake-count":
      return Result.map(parseCount(value, maxMembers), (wakeCount) => ({ wakeCount }))
    case "portmapper.sleep":
      return Result.map(parseAtLeast(value, 10), (sleep) => ({ sleep }))
    case "portmapper.wait-healthy":
      return Result.map(parseWait(value), (waitHealthy) => ({ waitHealthy }))
    case idleLabel: {
      const idle = idleStates.find((state) => state === value)
      return idle === undefined ? Result.fail(idleStates.join(" or ")) : Result.succeed({ idle })
    }
    case "portmapper.publish":
    case "portmapper.network":
      return Result.succeed({})
    case interfaceLabel:
      return Result.fail(
        "left out here, where addresses are published: interfaces are followed for portmapper map -p INTERFACE:PORT:CONTAINERPORT, and for the same in the label portmapper.publish (serve --watch)"
      )
    default:
      return isUnknownLabel(name)
        ? Result.fail(`one of the known labels (the nearest is ${nearestLabel(name)}): ${known.join(", ")}`)
        : Result.succeed({})
  }
}

/** `web`, `/web`, and `PROJECT/web`, as `portmapper watch` writes it. */
const sharePattern = /^(?:[\w.-]{0,255}\/)?[A-Za-z0-9][\w.-]{0,63}$/

/**
 * What all members of a service must have in common, as pairs of label and value. Labels that name the container or
 * its network differ. A default that is written out is the same as none.
 */
export const sharedPolicy = (labels: Labels): ReadonlyArray<readonly [name: string, value: string]> =>
  commonLabels.map((name) => {
    const value = labels.get(name) ?? ""
    return [name, value === defaults[name] ? "" : value]
  })

const defaults: Readonly<Record<string, string>> = {
  "portmapper.mode": "auto",
  "portmapper.balance": "random",
  "portmapper.wake": "off",
  "portmapper.wake-timeout": "30s",
  "portmapper.wake-count": "1"
}

const commonLabels = [
  ...["mode", "allow", "proxy-protocol", "udp-idle", "connections", "rate", "rate-per-source"],
  ...["balance", "scope", "wait-healthy", "wake", "wake-timeout", "wake-count", "sleep"]
].map((name) => `portmapper.${name}`)

const nearestLabel = (name: string): string => {
  const distances = known.map((label) => editDistance(name.toLowerCase(), label))
  return known[distances.indexOf(Math.min(...distances))] ?? ""
}

/** The number of letters to add, remove or replace (Levenshtein). */
const editDistance = (from: string, to: string): number => {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (const letter of from) {
    const next = [(row[0] ?? 0) + 1]
    for (let at = 0; at < to.length; at++) {
      const replaced = (row[at] ?? 0) + (letter === to[at] ? 0 : 1)
      next.push(Math.min((row[at + 1] ?? 0) + 1, (next[at] ?? 0) + 1, replaced))
    }
    row = next
  }
  return row[to.length] ?? 0
}

/** At least one second; see `parseDuration`. */
export const parseIdle = (text: string): Result.Result<Duration.Duration, string> => parseAtLeast(text, 1)

const parseAtLeast = (text: string, seconds: number): Result.Result<Duration.Duration, string> =>
  Result.flatMap(parseDuration(text), (duration) =>
    Duration.toSeconds(duration) >= seconds
      ? Result.succeed(duration)
      : Result.fail(`a duration of at least ${seconds}s`)
  )

const longestWait = Duration.minutes(10)

/** No longer than most clients wait by themselves; see `parseDuration`. */
const parseWait = (text: string): Result.Result<Duration.Duration, string> =>
  Result.flatMap(parseDuration(text), (wait) =>
    Duration.isLessThanOrEqualTo(wait, longestWait)
      ? Result.succeed(wait)
      : Result.fail(`a duration of at most ${Duration.toMinutes(longestWait)}m`)
  )

/** `90s`, `1500ms`, `5m`, `1h`, or in words as Effect writes them: `90 seconds`. Neither infinite nor negative. */
export const parseDuration = (text: string): Result.Result<Duration.Duration, string> => {
  const short = /^(\d+)\s*(ms|s|m|h)$/.exec(text)
  const unit = { ms: "millis", s: "seconds", m: "minutes", h: "hours" }[short?.[2] ?? ""]
  const parsed = Duration.fromInput((short === null ? text : `${short[1]} ${unit}`) as Duration.Input)
  return Option.isSome(parsed) && Duration.isFinite(parsed.value) && Duration.toMillis(parsed.value) >= 0
    ? Result.succeed(parsed.value)
    : Result.fail("a duration such as 90s or 5m")
}

const parseMode = (value: string): Result.Result<Partial<Policy>, string> => {
  if (value === "auto") return Result.succeed({ mode: undefined })
  const mode = modes.find((candidate) => candidate === value)
  return mode === undefined ? Result.fail(`one of auto, ${modes.join(", ")}`) : Result.succeed({ mode })
}

const greatestLimit = 1_000_000

const parseLimit = (value: string, unit: "" | "/s"): Result.Result<number, string> =>
  Result.mapError(
    parseCount(value.endsWith(unit) ? value.slice(0, value.length - unit.length) : "", greatestLimit),
    (rule) => `${rule}${unit === "" ? "" : ` with ${unit} behind it, such as 20/s`}`
  )

const parseCount = (value: string, most: number): Result.Result<number, string> =>
  /^[1-9]\d{0,6}$/.test(value) && Number(value) <= most
    ? Result.succeed(Number(value))
    : Result.fail(`a number from 1 to ${most}`)

/** At least one address or prefix, comma-separated. */
const parseNetworks = (value: string): Result.Result<ReadonlyArray<IpNetwork.IpNetwork>, string> => {
  const networks: Array<IpNetwork.IpNetwork> = []
  const parts = value.split(",")
  if (parts.length > maxPrefixes)
    return Result.fail(`at most ${maxPrefixes} addresses or prefixes (there are ${parts.length})`)
  for (const part of parts.map((text) => text.trim())) {
    const parsed = parseNetwork(part)
    if (Result.isFailure(parsed))
      return Result.fail(
        `addresses or prefixes such as 10.0.0.0/8,2001:db8::/32 (${part === "" ? "one is empty" : `${part}: ${parsed.failure}`})`
      )
    networks.push(parsed.success)
  }
  return Result.succeed(networks)
}
