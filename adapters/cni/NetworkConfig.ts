/**
 * The configuration that the runtime writes to stdin: what every command needs of it, what publishing needs, and what
 * `GC` needs, each parsed when it is needed. A teardown never fails because of an option that only publishing
 * refuses.
 *
 * Sources: https://www.cni.dev/docs/spec/#section-1-network-configuration-format, CONVENTIONS.md (`portMappings`),
 * and containernetworking/plugins plugins/meta/portmap for the options of the plugin that this one replaces.
 */
import { defaultSocket } from "../node/DefaultPaths.ts"
import { jsonOf } from "../node/jsonOf.ts"
import { CniError, codes } from "./CniError.ts"
import { type Attachment, type Invocation, isName } from "./Environment.ts"

export const supportedVersions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]
export const latestVersion = "1.1.0"

/** The commands that a later version of the specification added. */
const since: Partial<Record<Invocation["command"], string>> = { CHECK: "0.4.0", GC: "1.1.0", STATUS: "1.1.0" }

export type Json = Readonly<Record<string, unknown>>

/** What every command needs. `raw` is the whole configuration. */
export interface NetworkConfig {
  readonly version: string
  readonly name: string
  /** The Unix socket of the plugin that executes. */
  readonly socket: string
  readonly raw: Json
}

/** `hostIp` is `""` if none was given. */
export interface PortMapping {
  readonly protocol: (typeof protocols)[number]
  readonly hostPort: number
  readonly containerPort: number
  readonly hostIp: string
}

export interface Publication {
  readonly mappings: ReadonlyArray<PortMapping>
  /** The labels of each `MapPorts`, such as `portmapper.allow`. */
  readonly labels: Readonly<Record<string, string>>
}

/** The label from which `GC` knows which network a port was published for. */
export const networkLabel = "portmapper.cni-network"

export const defaultPluginSocket = (): string => defaultSocket("portmapper")

/** The socket that a text names: `""` if it names none or can't be parsed; `undefined` if it is not a path. */
export const socketNamed = (text: string): string | undefined => {
  const socket = (jsonOf(text) as Json | null | undefined)?.["socket"] ?? ""
  return typeof socket === "string" ? socket : undefined
}

/** Throws a `CniError` if the text is not a configuration, or its version is unknown or too old for the command. */
export const configOf = (text: string, command: Invocation["command"]): NetworkConfig => {
  const raw = objectIn(text)
  const version = raw["cniVersion"] ?? "0.1.0"
  if (typeof version !== "string")
    throw new CniError(codes.decoding, `cniVersion = ${shown(version)}: must be a string`)
  if (!supportedVersions.includes(version))
    throw new CniError(
      codes.incompatibleVersion,
      "incompatible CNI versions",
      `config is ${shown(version)}, plugin supports ${JSON.stringify(supportedVersions)}`
    )
  const first = since[command]
  if (first !== undefined && supportedVersions.indexOf(version) < supportedVersions.indexOf(first))
    throw new CniError(
      codes.incompatibleVersion,
      `config version does not allow ${command}`,
      `it came with ${first}, the configuration is of ${version}`
    )
  const issues: Array<string> = []
  const name = raw["name"]
  if (typeof name !== "string" || !isName(name))
    issues.push(
      `name = ${shown(name)}: must be the name of a network, alphanumeric, with _ . - after the first character`
    )
  const socket = raw["socket"] ?? defaultPluginSocket()
  if (typeof socket !== "string" || !socket.startsWith("/"))
    issues.push(`socket = ${shown(socket)}: must be an absolute path`)
  refuse(issues)
  return { version, name: String(name), socket: String(socket), raw }
}

/** What to publish. Throws for options that we can't honour, and for every invalid value. */
export const publicationOf = ({ name, raw }: NetworkConfig): Publication => {
  refuseUnsupported(raw)
  const issues: Array<string> = []
  const runtime = raw["runtimeConfig"] ?? {}
  const listed = isObject(runtime) ? (runtime["portMappings"] ?? []) : undefined
  const mappings = Array.isArray(listed)
    ? listed.flatMap((entry, index) => mappingOf(entry, `runtimeConfig.portMappings[${index}]`, issues))
    : []
  if (!Array.isArray(listed))
    issues.push(`runtimeConfig = ${shown(runtime)}: must be an object whose portMappings are an array`)
  const labels = raw["labels"] ?? {}
  if (!isObject(labels) || !Object.values(labels).every((value) => typeof value === "string"))
    issues.push(`labels = ${shown(labels)}: must be an object of strings`)
  refuse(issues)
  return { mappings, labels: { ...(labels as Record<string, string>), [networkLabel]: name } }
}

/** The attachments that still exist; none if the runtime names none, as in the reference plugins. */
export const validAttachments = ({ raw }: NetworkConfig): ReadonlyArray<Attachment> => {
  // libcni also writes the second name, from an earlier draft.
  const given = raw["cni.dev/valid-attachments"] ?? raw["cni.dev/attachments"] ?? []
  const issues: Array<string> = []
  const attachments = Array.isArray(given)
    ? given.flatMap((entry: unknown, index): ReadonlyArray<Attachment> => {
        const { containerID, ifname } = isObject(entry) ? entry : {}
        if (typeof containerID === "string" && typeof ifname === "string")
          return [{ containerId: containerID, ifName: ifname }]
        issues.push(
          `cni.dev/valid-attachments[${index}] = ${shown(entry)}: must have a containerID and an ifname`
        )
        return []
      })
    : []
  if (!Array.isArray(given)) issues.push(`cni.dev/valid-attachments = ${shown(given)}: must be an array`)
  refuse(issues)
  return attachments
}

/**
 * Refuses the reference plugin's options that would change which traffic is published, or how it arrives, and that we
 * don't have. The others configure its rules and don't apply to ours: `snat` (we masquerade a neighbour's traffic and
 * the host's own, which could not be answered otherwise, and nothing else), `markMasqBit`, `externalSetMarkChain`,
 * `backend`.
 */
const refuseUnsupported = (raw: Json): void => {
  const unsupported: Array<readonly [string, string]> = []
  if ((raw["masqAll"] ?? false) !== false)
    unsupported.push([
      "masqAll",
      'sources are kept; for a relay that shows the host\'s address set "labels": {"portmapper.mode": "proxy"}'
    ])
  for (const key of ["conditionsV4", "conditionsV6"]) {
    const given = raw[key] ?? []
    const none = Array.isArray(given) && given.every((condition) => condition === "")
    if (!none)
      unsupported.push([
        key,
        'no rules of iptables or nft are taken; to let in some sources only set "labels": {"portmapper.allow": "10.0.0.0/8"}'
      ])
  }
  const backend = raw["backend"] ?? "nftables"
  if (backend !== "nftables" && backend !== "iptables")
    unsupported.push(["backend", "iptables and nftables are known, and make no difference here"])
  if (unsupported.length === 0) return
  throw new CniError(
    codes.unsupportedField,
    `unsupported field: ${unsupported.map(([key]) => `${key} = ${shown(raw[key])}`).join(", ")}`,
    unsupported.map(([key, why]) => `${key}: ${why}`).join("; ")
  )
}

const mappingOf = (entry: unknown, path: string, issues: Array<string>): ReadonlyArray<PortMapping> => {
  const before = issues.length
  if (!isObject(entry)) {
    issues.push(`${path} = ${shown(entry)}: must be an object`)
    return []
  }
  const { hostPort, containerPort } = entry
  const hostIp = entry["hostIP"] ?? ""
  const asked = entry["protocol"] ?? ""
  const protocol = asked === "" ? "tcp" : protocols.find((known) => known === String(asked).toLowerCase())
  if (protocol === undefined)
    issues.push(`${path}.protocol = ${shown(asked)}: must be ${protocols.join(", ")}`)
  if (!isPort(hostPort))
    issues.push(`${path}.hostPort = ${shown(hostPort)}: must be an integer from 1 to 65535`)
  if (!isPort(containerPort))
    issues.push(`${path}.containerPort = ${shown(containerPort)}: must be an integer from 1 to 65535`)
  if (typeof hostIp !== "string" || (hostIp !== "" && familyOf(hostIp) === undefined))
    issues.push(`${path}.hostIP = ${shown(hostIp)}: must be an IPv4 or IPv6 address`)
  return issues.length > before || protocol === undefined
    ? []
    : [
        {
          protocol,
          hostPort: Number(hostPort),
          containerPort: Number(containerPort),
          hostIp: String(hostIp)
        }
      ]
}

export const familyOf = (address: string): 4 | 6 | undefined => {
  const { isIP } = process.getBuiltinModule("node:net")
  if (isIP(address) === 0) return undefined
  return canonical(address).includes(":") ? 6 : 4
}

/** The canonical spelling of an address, as in `parseAddress`: an IPv4-mapped address becomes the IPv4 address. */
export const canonical = (address: string): string => {
  const [bare = "", zone] = address.split("%")
  if (!bare.includes(":")) return address
  const short = new URL(`http://[${bare}]`).hostname.slice(1, -1)
  const mapped = /^::ffff:([0-9a-f]+):([0-9a-f]+)$/.exec(short)
  const groups = mapped?.slice(1).map((group) => Number.parseInt(group, 16))
  const text = groups?.flatMap((group) => [group >> 8, group & 255]).join(".") ?? short
  return zone === undefined ? text : `${text}%${zone}`
}

const protocols = ["tcp", "udp", "sctp"] as const

const isPort = (value: unknown): boolean =>
  Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 65535

const objectIn = (text: string): Json => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new CniError(
      codes.decoding,
      "the network configuration on stdin is no JSON",
      error instanceof Error ? error.message : ""
    )
  }
  if (!isObject(value))
    throw new CniError(codes.decoding, `the network configuration on stdin is no object: ${shown(value)}`)
  return value
}

const refuse = (issues: ReadonlyArray<string>): void => {
  if (issues.length > 0) throw new CniError(codes.config, "invalid network configuration", issues.join("; "))
}

export const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const shown = (value: unknown): string => {
  const text = JSON.stringify(value) ?? "missing"
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}
