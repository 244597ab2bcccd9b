/**
 * The lab's networks as shell text; nothing is run here. Every interface is created inside a namespace, so the
 * machine's own interfaces, addresses and tables are never touched, and everything goes when the namespaces go.
 *
 *   client 10.99.0.2 ── 10.99.0.1 host 172.31.0.1 ── br0 ─┬─ c1 172.31.0.2
 *          fd99::2       fd99::1       fd66::1            └─ c2 172.31.0.3
 */

/** A container: a namespace with one interface on a bridge of the host. Addresses without a prefix length. */
export interface Container {
  readonly ipv4?: string
  readonly ipv6?: string
  /** No default route for IPv6: the container reaches only its bridge. */
  readonly noDefaultIpv6?: boolean
}

/** A bridge of the host, with the host's own addresses on it, such as `172.30.6.1/24`. */
export interface Network {
  readonly ipv4?: string
  readonly ipv6?: string
  readonly containers: Readonly<Record<string, Container>>
}

export interface LabOptions {
  /** `br0`, with `c1` and `c2`. */
  readonly network?: Network
  /** Further bridges, `br1` onwards. */
  readonly networks?: ReadonlyArray<Network>
  /** `client2`, on its own wire: 10.98.0.2 and fd98::2, the host's end 10.98.0.1 and fd98::1. */
  readonly secondClient?: boolean
  /** Further addresses on the host's wire to the client, such as `10.99.0.9/24` or `fd99::9/64`. */
  readonly hostAddresses?: ReadonlyArray<string>
  /** Further addresses of the client, for several sources. */
  readonly clientAddresses?: ReadonlyArray<string>
  /** `bridge-nf-call-iptables` and its IPv6 twin, where the kernel has them. Default false. */
  readonly bridgeNetfilter?: boolean
  /** Sysctls of the host, such as `{ "net.netfilter.nf_conntrack_acct": "1" }`. */
  readonly hostSysctls?: Readonly<Record<string, string>>
}

export const defaultNetwork = {
  ipv4: "172.31.0.1/24",
  ipv6: "fd66::1/64",
  containers: {
    c1: { ipv4: "172.31.0.2", ipv6: "fd66::2" },
    c2: { ipv4: "172.31.0.3", ipv6: "fd66::3" }
  }
} as const satisfies Network

/** Every role in a lab with these options, the host and the clients first. */
export const roles = (options: LabOptions): ReadonlyArray<string> => [
  "host",
  "client",
  ...(options.secondClient === true ? ["client2"] : []),
  ...networks(options).flatMap((network) => Object.keys(network.containers))
]

/** A script for `sh -e`. `nameOf` gives a role's namespace. */
export const setUp = (options: LabOptions, nameOf: (role: string) => string): string => {
  const host: Array<string> = ["link set lo up"]
  const lines: Array<string> = []
  for (const role of roles(options)) lines.push(`ip netns add ${nameOf(role)}`)
  for (const role of roles(options)) {
    const settings = role === "host" ? hostSettings(options) : endSettings
    lines.push(`ip netns exec ${nameOf(role)} sh -ec '${settings.join("; ")}' &`, `pids="$pids $!"`)
  }
  lines.push("for pid in $pids; do wait $pid; done")

  const end = (
    role: string,
    device: string,
    addresses: ReadonlyArray<string>,
    routes: ReadonlyArray<string>
  ) =>
    lines.push(
      batch(nameOf(role), [
        "link set lo up",
        ...addresses.map((address) => addressLine(address, device)),
        `link set dev ${device} up`,
        ...routes.map((via) => `route add default via ${via}`)
      ])
    )

  const clients = [
    { role: "client", device: "up0", net: 99, host: options.hostAddresses, own: options.clientAddresses }
  ]
  if (options.secondClient === true)
    clients.push({ role: "client2", device: "up1", net: 98, host: undefined, own: undefined })
  for (const { role, device, net, host: more = [] } of clients)
    host.push(
      `link add name ${device} type veth peer name eth0 netns ${nameOf(role)}`,
      ...[`10.${net}.0.1/24`, `fd${net}::1/64`, ...more].map((address) => addressLine(address, device)),
      `link set dev ${device} up`
    )
  networks(options).forEach((network, index) => {
    const bridge = `br${index}`
    host.push(`link add name ${bridge} type bridge`)
    for (const address of [network.ipv4, network.ipv6])
      if (address !== undefined) host.push(addressLine(address, bridge))
    for (const role of Object.keys(network.containers))
      host.push(
        `link add name ${role} type veth peer name eth0 netns ${nameOf(role)}`,
        `link set dev ${role} master ${bridge} up`
      )
    host.push(`link set dev ${bridge} up`)
  })
  lines.push(batch(nameOf("host"), host))

  for (const { role, net, own = [] } of clients)
    end(role, "eth0", [`10.${net}.0.2/24`, `fd${net}::2/64`, ...own], [`10.${net}.0.1`, `fd${net}::1`])
  for (const network of networks(options))
    for (const [role, container] of Object.entries(network.containers))
      end(role, "eth0", ...containerEnd(network, container))
  return lines.join("\n")
}

const networks = (options: LabOptions): ReadonlyArray<Network> => [
  options.network ?? defaultNetwork,
  ...(options.networks ?? [])
]

const containerEnd = (
  network: Network,
  container: Container
): [addresses: ReadonlyArray<string>, routes: ReadonlyArray<string>] => {
  const addresses: Array<string> = []
  const routes: Array<string> = []
  const add = (address: string | undefined, bridge: string | undefined, routed: boolean) => {
    if (address === undefined || bridge === undefined) return
    const [gateway, length] = bridge.split("/")
    addresses.push(`${address}/${length}`)
    if (routed) routes.push(`${gateway}`)
  }
  add(container.ipv4, network.ipv4, true)
  add(container.ipv6, network.ipv6, container.noDefaultIpv6 !== true)
  return [addresses, routes]
}

/** Without duplicate address detection: an IPv6 address is usable at once, not a second later. */
const addressLine = (address: string, device: string) =>
  `address add ${address} dev ${device}${address.includes(":") ? " nodad" : ""}`

const batch = (namespace: string, lines: ReadonlyArray<string>) =>
  `ip -n ${namespace} -batch - <<END\n${lines.join("\n")}\nEND`

const set = (key: string, value: string) => `echo ${value} > /proc/sys/${key.replaceAll(".", "/")}`

const setWhereKnown = (key: string, value: string) => {
  const path = `/proc/sys/${key.replaceAll(".", "/")}`
  return `[ ! -e ${path} ] || echo ${value} > ${path}`
}

/** Sets what a new namespace inherits from the machine to the kernel's defaults, so that labs are alike everywhere. */
const endSettings = [
  setWhereKnown("net.ipv6.conf.all.disable_ipv6", "0"),
  setWhereKnown("net.ipv6.conf.default.disable_ipv6", "0"),
  setWhereKnown("net.ipv6.conf.all.accept_dad", "0"),
  setWhereKnown("net.ipv6.conf.default.accept_dad", "0"),
  set("net.ipv4.conf.all.rp_filter", "0"),
  set("net.ipv4.conf.default.rp_filter", "0")
]

const hostSettings = (options: LabOptions) => {
  const bridged = options.bridgeNetfilter === true ? "1" : "0"
  return [
    ...endSettings,
    set("net.ipv4.ip_forward", "1"),
    setWhereKnown("net.ipv6.conf.all.forwarding", "1"),
    set("net.ipv4.conf.all.route_localnet", "0"),
    setWhereKnown("net.bridge.bridge-nf-call-iptables", bridged),
    setWhereKnown("net.bridge.bridge-nf-call-ip6tables", bridged),
    ...Object.entries(options.hostSysctls ?? {}).map(([key, value]) => set(key, `"${value}"`))
  ]
}
