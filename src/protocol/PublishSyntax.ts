/**
 * Docker's `-p` syntax: `[HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]` says what to publish, and its host side
 * alone, or with the container port, what to unpublish. A failure is the broken rule, as a phrase to append to
 * the text.
 *
 * Source: docker/go-connections nat/nat.go (ParsePortSpec). Three things differ: port 0 means any free port as the
 * host port, and is invalid anywhere else; an IPv6 address may have a zone; the name of one of the host's interfaces
 * may stand for the address.
 */
import { Result } from "effect"
import { type Address, type Family, hostText, notAnAddress, parseAddress, unspecified } from "./Address.ts"
import type { Entry, Group, Labels, PortRequest } from "./PortBinding.ts"
import { type PortRange, parsePortRange, rangeText } from "./PortRange.ts"
import { Protocol } from "./Protocol.ts"

export const publishForm = "[HOSTIP:][PORT[-END]]:CONTAINERPORT[-END][/PROTO]"
export const unpublishForm = "[HOSTIP:]PORT[-END][:CONTAINERPORT[-END]][/PROTO]"

/**
 * `host` is `undefined` for every address of the host, of both families; `hostPorts` is `undefined` for any free
 * port. Either there are as many host ports as container ports, and they are paired, or there is one container port
 * and the host ports are a range to pick from.
 */
export interface Publish {
  readonly protocol: Protocol
  readonly host: Address | undefined
  /** The interface whose addresses stand for `host`; then the host ports are exact. */
  readonly interfaceName?: string
  readonly hostPorts: PortRange | undefined
  readonly containerPorts: PortRange
}

/** The host side of a `Publish`. */
export interface Unpublish {
  readonly protocol: Protocol
  readonly host: Address | undefined
  readonly interfaceName?: string
  readonly ports: PortRange
  /** Only what leads to these; as many as `ports`, or one. */
  readonly containerPorts?: PortRange
}

/** The destination of published traffic: an address of either family, or one of each. */
export interface PublishTo {
  readonly v4: Address | undefined
  readonly v6: Address | undefined
}

export const parsePublish = (text: string): Result.Result<Publish, string> =>
  Result.gen(function* () {
    const { protocol, host, interfaceName, ports } = yield* splitText(text, publishForm, 2)
    const container = ports.at(-1) ?? ""
    const before = ports.at(-2)
    const lone = before === undefined ? host : Result.getOrUndefined(parseAddress(before))
    if (lone !== undefined)
      return yield* Result.fail(`for any free host port leave it empty: ${hostText(lone)}::${container}`)
    if (container === "") return yield* Result.fail(`the container port is missing; expected ${publishForm}`)
    const containerPorts = yield* portsOf("container port", container)
    const hostPorts =
      before === undefined || /^0*$/.test(before) ? undefined : yield* portsOf("host port", before)
    const wanted = count(containerPorts)
    if (
      before !== undefined &&
      before !== "" &&
      wanted > 1 &&
      count(hostPorts ?? { first: 0, last: 0 }) !== wanted
    )
      return yield* Result.fail(
        `host port "${before}" for ${wanted} container ports (${rangeText(containerPorts)}); expected as many, none, or one container port`
      )
    const publish = { protocol, host, hostPorts, containerPorts }
    return interfaceName === undefined ? publish : yield* atInterface(publish, interfaceName)
  })

/** The interface that a `-p` names. */
export const interfaceOf = (text: string): string | undefined =>
  /^[^/]*[A-Za-z_]/.test(text) ? Result.getOrUndefined(parsePublish(text))?.interfaceName : undefined

/** The same ports at the addresses of an interface. */
export const atInterface = (publish: Publish, name: string): Result.Result<Publish, string> => {
  const { host, interfaceName, hostPorts, containerPorts } = publish
  const other = interfaceName ?? (host === undefined ? undefined : hostText(host))
  if (other !== undefined && other !== name)
    return Result.fail(`published at ${other} already, so not at the interface ${name}`)
  // An address that comes later must get the port that the others have.
  return hostPorts === undefined || count(hostPorts) !== count(containerPorts)
    ? Result.fail(
        `an interface needs an exact host port for each container port: ${name}:PORT:${rangeText(containerPorts)}`
      )
    : Result.succeed({ ...publish, interfaceName: name })
}

/** The host side alone, or the whole of a `-p`, as it was asked for. */
export const parseUnpublish = (text: string): Result.Result<Unpublish, string> =>
  // A port in place of the address: the text is the whole.
  /^[\d-]*:[\d-]*(\/|$)/.test(text)
    ? wholeOf(parsePublish(text))
    : Result.orElse(hostSideOf(text), (why) => wholeOf(Result.mapError(parsePublish(text), () => why)))

const wholeOf = (publish: Result.Result<Publish, string>): Result.Result<Unpublish, string> =>
  Result.flatMap(publish, ({ hostPorts: ports, ...others }) =>
    ports === undefined ? Result.fail(hostPortMissing) : Result.succeed({ ...others, ports })
  )

const hostPortMissing = `the host port is missing; expected ${unpublishForm}`

const hostSideOf = (text: string): Result.Result<Unpublish, string> =>
  Result.gen(function* () {
    const { ports, ...side } = yield* splitText(text, unpublishForm, 1)
    const port = ports.at(-1) ?? ""
    if (port === "") return yield* Result.fail(hostPortMissing)
    return { ...side, ports: yield* portsOf("host port", port) }
  })

/** The shortest text that `parsePublish` parses to this value. */
export const publishText = (publish: Publish): string => {
  const { protocol, hostPorts, containerPorts } = publish
  const before = sideText(publish)
  const middle = hostPorts === undefined ? (before === "" ? "" : ":") : `${rangeText(hostPorts)}:`
  return `${before}${middle}${rangeText(containerPorts)}${protocolText(protocol)}`
}

/** Whether these name a host port that leads to this container port. */
export const namesPorts = (named: Unpublish, hostPort: number, containerPort: number): boolean =>
  hostPort >= named.ports.first &&
  hostPort <= named.ports.last &&
  (containerPortOf(named, hostPort) ?? containerPort) === containerPort

/** Whether it names this address, or the interface whose addresses are followed. */
export const namesHost = (
  named: Unpublish,
  host: Address | undefined,
  followed: string | undefined
): boolean =>
  named.interfaceName === undefined
    ? hostsOf(named.host).some(({ key }) => key === host?.key)
    : named.interfaceName === followed

/** The container port that is named with this host port. */
export const containerPortOf = ({ ports, containerPorts }: Unpublish, hostPort: number): number | undefined =>
  containerPorts && containerPorts.first + (count(containerPorts) === 1 ? 0 : hostPort - ports.first)

/** The shortest text that `parseUnpublish` parses to this value. */
export const unpublishText = (unpublish: Unpublish): string => {
  const { ports, containerPorts, protocol } = unpublish
  const container = containerPorts === undefined ? "" : `:${rangeText(containerPorts)}`
  return `${sideText(unpublish)}${rangeText(ports)}${container}${protocolText(protocol)}`
}

const sideText = ({ host, interfaceName }: Pick<Publish, "host" | "interfaceName">): string => {
  const side = interfaceName ?? (host === undefined ? "" : hostText(host))
  return side === "" ? "" : `${side}:`
}

/** The most ports that one container may publish; each port becomes a group. */
const mostPorts = 65_536

/** The rule that these break together, or `undefined`. */
export const tooManyPorts = (all: ReadonlyArray<Publish>): string | undefined => {
  const ports = all.reduce((sum, { containerPorts }) => sum + count(containerPorts), 0)
  return ports > mostPorts ? `at most ${mostPorts} container ports in all (there are ${ports})` : undefined
}

/** The host addresses that a `-p` stands for. */
export const hostsOf = (host: Address | undefined): ReadonlyArray<Address> =>
  host === undefined ? [unspecified(4), unspecified(6)] : [host]

/**
 * The groups to request: one for each pair of ports, or a single one. An IPv4 frontend leads to the IPv4 address;
 * an IPv6 frontend to the IPv6 address if there is one, else to the IPv4 address. `hosts` are the frontends'
 * addresses.
 */
export const groupsOf = (
  publish: Publish,
  to: PublishTo,
  labels: Labels,
  hosts = hostsOf(publish.host)
): Result.Result<ReadonlyArray<Group>, string> => {
  const { protocol, hostPorts, containerPorts } = publish
  const pairs = hosts.flatMap((frontend) => {
    const backend = backendFor(frontend.family, to)
    return backend === undefined ? [] : [{ frontend, backend }]
  })
  if (pairs.length === 0) return Result.fail(`${hosts[0]?.text} is IPv4, which leads to an IPv4 address only`)
  const entries = (port: number): ReadonlyArray<Entry> =>
    pairs.map(({ frontend, backend }) => ({
      protocol,
      host: frontend,
      requestedAddress: frontend.text,
      backend: { address: backend, port }
    }))
  return Result.succeed(
    Array.from({ length: count(containerPorts) }, (_, index) => ({
      entries: entries(containerPorts.first + index),
      ports: portRequest(hostPorts, containerPorts, index),
      labels
    }))
  )
}

const backendFor = (family: Family, { v4, v6 }: PublishTo): Address | undefined =>
  family === 4 ? v4 : (v6 ?? v4)

const portRequest = (
  hostPorts: PortRange | undefined,
  containerPorts: PortRange,
  index: number
): PortRequest => {
  if (hostPorts === undefined) return { _tag: "Ephemeral" }
  if (count(containerPorts) > 1 || count(hostPorts) === 1)
    return { _tag: "Exact", port: hostPorts.first + index }
  return { _tag: "Range", ...hostPorts }
}

interface Parts {
  readonly protocol: Protocol
  readonly host: Address | undefined
  readonly interfaceName?: string
  /** The unparsed texts between the colons after the address: `most` of them, or fewer where there is no address. */
  readonly ports: ReadonlyArray<string>
}

/** Splits the protocol off the end and the host address off the front, where there is one. */
const splitText = (text: string, form: string, most: number): Result.Result<Parts, string> =>
  Result.gen(function* () {
    if (text === "") return yield* Result.fail(`expected ${form}`)
    // A slash before the last colon does not start the protocol.
    const slash = text.indexOf("/", text.lastIndexOf(":") + 1)
    const protocol = slash === -1 ? "tcp" : yield* protocolOf(text.slice(slash + 1))
    const body = slash === -1 ? text : text.slice(0, slash)
    const bracketed = /^\[([^\]]*)\]:(.*)$/.exec(body)
    const parts = (bracketed?.[2] ?? body).split(":")
    const before = bracketed?.[1] ?? parts.slice(0, -most).join(":")
    if (bracketed !== null && parts.length > most)
      return yield* Result.fail(`too many colons; expected ${form}`)
    if (bracketed === null && before === "") return { protocol, host: undefined, ports: parts.slice(-most) }
    if (bracketed === null && isInterfaceName(before))
      return { protocol, host: undefined, interfaceName: before, ports: parts.slice(-most) }
    // Go accepts anything as a zone; no interface name has a slash, and half a pair of brackets is a typing error.
    const stray = before.includes("/") || (bracketed === null && /[[\]]/.test(before))
    const address = stray ? Result.fail(notAnAddress) : parseAddress(before)
    const host = yield* Result.mapError(address, (reason) => addressProblem(before, reason, form))
    return { protocol, host, ports: parts.slice(-most) }
  })

/**
 * The names that Linux accepts, without those that could be a mistyped port or address. `localhost` is a host's name
 * to everybody else, and the kernel's settings for every interface have the names `all` and `default`.
 */
export const isInterfaceName = (text: string): boolean =>
  /^(?=.{1,15}$)[\w.-]*[A-Za-z_][\w.-]*$/.test(text) &&
  !/^0x/i.test(text) &&
  !isLocalhost(text) &&
  text !== "all" &&
  text !== "default"

const isLocalhost = (text: string): boolean => /^(ip6-)?localhost$/i.test(text)

export const interfaceNameRule =
  "the name of an interface: at most 15 letters, digits, `_`, `.` and `-`, with a letter among them"

const addressProblem = (text: string, reason: string, form: string): string =>
  `host address "${text}": ${addressHint(text, form) ?? reason}`

/** What was meant, perhaps. */
const addressHint = (text: string, form: string): string | undefined => {
  if (isLocalhost(text)) return "an address is wanted, 127.0.0.1 or [::1]"
  if (/^(\*|all|any|default)$/i.test(text)) return "for every address leave it out"
  if (text.includes(":")) return `${notAnAddress} (IPv6 in brackets); expected ${form}`
  if (text.includes("/"))
    return `${notAnAddress}; which clients are let in says the label portmapper.allow=${text}`
  return /[A-Za-z]/.test(text) ? `${notAnAddress}, nor ${interfaceNameRule}` : undefined
}

const portsOf = (what: string, text: string): Result.Result<PortRange, string> =>
  Result.mapError(parsePortRange(text), (reason) => `${what} "${text}": ${reason}`)

const protocolOf = (text: string): Result.Result<Protocol, string> => {
  if (text === "") return Result.succeed("tcp")
  const found = Protocol.literals.find((protocol) => protocol === text.toLowerCase())
  return found === undefined
    ? Result.fail(`protocol "${text}": expected ${Protocol.literals.join(", ")}`)
    : Result.succeed(found)
}

const protocolText = (protocol: Protocol): string => (protocol === "tcp" ? "" : `/${protocol}`)

const count = ({ first, last }: PortRange): number => last - first + 1
