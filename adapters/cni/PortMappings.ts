/**
 * Turns port mappings and a container's addresses into the groups to request. Groups them as the Engine does: one
 * protocol, one host port and one container port form a group of all requested host addresses.
 */
import { protocolNumber, protocolOfNumber } from "../../src/protocol/Protocol.ts"
import { CniError, codes } from "./CniError.ts"
import type { Attachment } from "./Environment.ts"
import { canonical, familyOf, isObject, type Json, type PortMapping } from "./NetworkConfig.ts"

/** The addresses of a container's interface; at least one if ports are published. */
export interface ContainerAddresses {
  readonly v4: string | undefined
  readonly v6: string | undefined
}

/** One entry of a `MapPorts` request; these fields of a binding identify it. */
export interface WireEntry {
  readonly Proto: number
  readonly BackendIP: string
  readonly BackendPort: number
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly FrontendPortEnd: number
}

/**
 * Without a host address a port is published on all addresses of the container's families. With one, traffic goes to
 * the container's address of the same family, or else to that of the other family, which needs the relay.
 */
export const groupsOf = (
  mappings: ReadonlyArray<PortMapping>,
  container: ContainerAddresses
): ReadonlyArray<ReadonlyArray<WireEntry>> => {
  const groups = new Map<string, Map<string, WireEntry>>()
  for (const { protocol, hostPort, containerPort, hostIp } of mappings) {
    const key = `${protocol} ${hostPort} ${containerPort}`
    const group = groups.get(key) ?? new Map<string, WireEntry>()
    groups.set(key, group)
    for (const [frontend, backend] of endsOf(hostIp, container))
      group.set(canonical(frontend), {
        Proto: protocolNumber[protocol],
        BackendIP: backend,
        BackendPort: containerPort,
        FrontendIP: frontend,
        FrontendPort: hostPort,
        FrontendPortEnd: hostPort
      })
  }
  return [...groups.values()].map((group) => [...group.values()])
}

/**
 * The first address of each family that the result assigns to this interface, or to no interface that it names. A
 * result before 0.3.0 has one address of each family. Throws if there is none at all.
 */
export const containerAddresses = (prevResult: Json, { ifName }: Attachment): ContainerAddresses => {
  const listed = Array.isArray(prevResult["ips"])
    ? prevResult["ips"]
        .filter((ip) => isOfContainer(ip, prevResult["interfaces"], ifName))
        .map((ip) => addressIn(ip, "address"))
    : [addressIn(prevResult["ip4"], "ip"), addressIn(prevResult["ip6"], "ip")]
  const addresses = listed.filter((address) => address !== undefined)
  const v4 = addresses.find((address) => familyOf(address) === 4)
  const v6 = addresses.find((address) => familyOf(address) === 6)
  if (v4 === undefined && v6 === undefined)
    throw new CniError(
      codes.config,
      "invalid network configuration",
      `prevResult has no address of ${ifName} that ports could lead to`
    )
  return { v4, v6 }
}

/** `8080/tcp to 10.88.0.2:80`: a group as errors name it. */
export const groupText = ([entry]: ReadonlyArray<WireEntry>): string => {
  if (entry === undefined) return ""
  return `${entry.FrontendPort}/${protocolOfNumber(entry.Proto)} to ${joined(entry.BackendIP, entry.BackendPort)}`
}

/** Equal for two bindings if they are the same. */
export const bindingKey = (binding: Omit<WireEntry, "FrontendPortEnd">): string => {
  const { Proto, FrontendIP, FrontendPort, BackendIP, BackendPort } = binding
  return [Proto, canonical(FrontendIP), FrontendPort, canonical(BackendIP), BackendPort].join(" ")
}

export const frontendText = ({ FrontendIP, FrontendPort, Proto }: WireEntry): string =>
  `${joined(FrontendIP, FrontendPort)}/${protocolOfNumber(Proto)}`

const endsOf = (
  hostIp: string,
  { v4, v6 }: ContainerAddresses
): ReadonlyArray<readonly [frontend: string, backend: string]> => {
  if (hostIp !== "") {
    const backend = familyOf(hostIp) === 4 ? (v4 ?? v6) : (v6 ?? v4)
    return backend === undefined ? [] : [[hostIp, backend]]
  }
  return [
    ...(v4 === undefined ? [] : ([["0.0.0.0", v4]] as const)),
    ...(v6 === undefined ? [] : ([["::", v6]] as const))
  ]
}

/** An address that names no interface of the result may be the container's; one of another interface is not. */
const isOfContainer = (ip: unknown, interfaces: unknown, ifName: string): boolean => {
  const index = isObject(ip) ? ip["interface"] : undefined
  if (!Array.isArray(interfaces) || typeof index !== "number" || index < 0) return true
  if (index >= interfaces.length) return true
  const named: unknown = interfaces[index]
  return isObject(named) && named["name"] === ifName && Boolean(named["sandbox"])
}

const addressIn = (ip: unknown, key: "address" | "ip"): string | undefined => {
  const text = isObject(ip) ? ip[key] : undefined
  const address = typeof text === "string" ? text.replace(/\/\d+$/, "") : ""
  return familyOf(address) === undefined ? undefined : address
}

const joined = (address: string, port: number): string =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`
