/** The interfaces that packets enter and leave by, from the kernel's routes and addresses (proc_net(5)). */
import * as Fs from "node:fs"
import * as Os from "node:os"
import { Result } from "effect"
import type { IpNetwork } from "effect/net"
import {
  type Address,
  type Family,
  fromOctets,
  isUnspecified,
  isWithin,
  networkOf,
  parseAddress
} from "../../src/protocol/Address.ts"
import { readText } from "../node/FileText.ts"

export type Interfaces = ReturnType<typeof readInterfaces>

interface RouteRow {
  readonly network: IpNetwork.IpNetwork
  readonly metric: number
  readonly name: string
}

export const readInterfaces = () => {
  const routes = { 4: ipv4Routes(), 6: ipv6Routes() }
  const addresses = Object.entries(Os.networkInterfaces()).flatMap(([name, all = []]) =>
    all.flatMap(({ address }) => {
      const parsed = parseAddress(address)
      return Result.isSuccess(parsed) ? [{ name, address: parsed.success }] : []
    })
  )
  const towards = (octets: Uint8Array): string | undefined =>
    routes[octets.length === 4 ? 4 : 6]
      .filter(({ network }) => isWithin([network], octets))
      .sort((a, b) => b.network.prefixLength - a.network.prefixLength || a.metric - b.metric)[0]?.name
  const bridges = names().filter((name) => Fs.existsSync(`/sys/class/net/${name}/bridge`))

  return {
    /** The interface towards an address; `undefined` if no route is known. */
    towards: ({ octets }: Address) => towards(octets),
    /** The interface that has this address, or else the one towards the outside. */
    outside: (host: Address, inside: string) =>
      addresses.find(({ address }) => !isUnspecified(host) && address.key === host.key)?.name ??
      towards(new Uint8Array(host.octets.length)) ??
      addresses.find(
        ({ name, address }) =>
          name !== "lo" && name !== inside && !bridges.includes(name) && address.family === host.family
      )?.name ??
      "eth0",
    /** The first address of this family on an interface. */
    addressOf: (name: string, family: Family) =>
      addresses.find((own) => own.name === name && own.address.family === family)?.address,
    bridges
  }
}

const names = (): ReadonlyArray<string> =>
  lines("/proc/net/dev").flatMap((line) => /^\s*(\S+):/.exec(line)?.[1] ?? [])

const reject = 0x200

/** Columns: interface, destination, gateway, flags, …, metric, mask; addresses are numbers of the host, in hexadecimal. */
const ipv4Routes = (): ReadonlyArray<RouteRow> =>
  lines("/proc/net/route").flatMap((line) => {
    const [name = "", destination = "", , flags = "", , , metric, mask = ""] = line.split(/\s+/)
    if (!/^[0-9A-F]{8}$/.test(destination) || (Number.parseInt(flags, 16) & reject) !== 0) return []
    const length = [...hostOctets(mask)].reduce((bits, octet) => bits + bitsOf(octet), 0)
    return [{ network: networkOf(hostOctets(destination), length), metric: Number(metric), name }]
  })

/** Columns: destination, its length, source, its length, gateway, metric, …, flags, interface; all in hexadecimal. */
const ipv6Routes = (): ReadonlyArray<RouteRow> =>
  lines("/proc/net/ipv6_route").flatMap((line) => {
    const [destination = "", length = "", , , , metric = "", , , flags = "", name = ""] = line
      .trim()
      .split(/\s+/)
    if (name === "" || name === "lo" || (Number.parseInt(flags, 16) & reject) !== 0) return []
    const network = networkOf(Buffer.from(destination, "hex"), Number.parseInt(length, 16))
    return [{ network, metric: Number.parseInt(metric, 16), name }]
  })

const lines = (path: string): ReadonlyArray<string> => (readText(path) ?? "").split("\n")

/** Four octets in network order, from a number in the host's byte order. */
const hostOctets = (text: string): Uint8Array =>
  new Uint8Array(Uint32Array.of(Number.parseInt(text, 16)).buffer)

const bitsOf = (octet: number): number => [...octet.toString(2)].filter((bit) => bit === "1").length

/** Another address in a bridge's network, as a container might have. */
export const neighbourOf = (address: Address): Address => {
  const octets = Uint8Array.from(address.octets)
  const last = octets.length - 1
  octets[last] = (octets[last] ?? 0) === 250 ? 249 : 250
  return fromOctets(octets)
}
