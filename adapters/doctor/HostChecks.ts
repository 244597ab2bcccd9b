/**
 * What this host can do for published ports, check by check: each reports what it found and, if that is not enough,
 * a remedy. Reads only; changes nothing.
 */
import { defaultMark, findChains } from "../linux/nft/DockerUser.ts"
import { markText } from "../linux/nft/Ruleset.ts"
import { readText } from "../node/FileText.ts"
import { run } from "./HostRules.ts"

/**
 * `fail`: ports can't be published as requested until it is fixed. `warn`: some can't, or not as well as they
 * could.
 */
export type CheckStatus = "ok" | "warn" | "fail"

export interface Check {
  readonly name: string
  readonly status: CheckStatus
  readonly found: string
  /** The remedy; `undefined` if none is needed. */
  readonly remedy: string | undefined
}

export const hostChecks = (): ReadonlyArray<Check> => [
  checkPrivileges(),
  checkNftables(),
  checkForwarding("IPv4 forwarding", "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
  checkIpv6(),
  checkSctp(),
  checkConntrack(),
  checkDescriptors()
]

export const ok = (name: string, found: string): Check => ({ name, status: "ok", found, remedy: undefined })
export const warn = (name: string, found: string, remedy: string): Check => ({
  name,
  status: "warn",
  found,
  remedy
})

/** CAP_NET_ADMIN, see capabilities(7): the bit that lets a process change the kernel's tables. */
const netAdminBit = 12n

const checkPrivileges = (): Check => {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readText("/proc/self/status") ?? "")?.[1]
  if (effective !== undefined && ((BigInt(`0x${effective}`) >> netAdminBit) & 1n) === 1n)
    return ok("privileges", "may change the kernel's tables (CAP_NET_ADMIN)")
  return warn(
    "privileges",
    "may not change the kernel's tables",
    "run as root, or with AmbientCapabilities=CAP_NET_ADMIN CAP_NET_BIND_SERVICE, to redirect in the kernel"
  )
}

const checkNftables = (): Check => {
  const { output, found: isInstalled } = run("nft", "--version")
  if (!isInstalled)
    return warn(
      "nftables",
      "nft was not found",
      "apt install nftables (or your system's package of that name)"
    )
  const { failed } = run("nft", "list", "tables")
  const found = output.trim()
  return failed === undefined
    ? ok("nftables", found)
    : warn(
        "nftables",
        `${found}, but the kernel's tables can't be read: ${failed}`,
        "run as root; load nf_tables"
      )
}

const checkForwarding = (name: string, path: string, setting: string): Check =>
  readText(path)?.trim() === "1"
    ? ok(name, "on")
    : warn(name, "off: redirected packets from outside do not reach a container", `sysctl -w ${setting}=1`)

const checkIpv6 = (): Check => {
  const disabled = readText("/proc/sys/net/ipv6/conf/all/disable_ipv6")?.trim()
  if (disabled === undefined) return warn("IPv6", "the kernel has none", "publish on IPv4 addresses only")
  if (disabled === "1") return warn("IPv6", "disabled", "sysctl -w net.ipv6.conf.all.disable_ipv6=0")
  return checkForwarding("IPv6", "/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding")
}

const checkSctp = (): Check =>
  /^SCTP\s/m.test(readText("/proc/net/protocols") ?? "")
    ? ok("SCTP", "in the kernel")
    : warn("SCTP", "not loaded: publishing an SCTP port may fail", "modprobe sctp, where the kernel has it")

const checkConntrack = (): Check => {
  const count = Number(readText("/proc/sys/net/netfilter/nf_conntrack_count"))
  const max = Number(readText("/proc/sys/net/netfilter/nf_conntrack_max"))
  if (!(max > 0)) return ok("conntrack", "not loaded yet; the first redirection loads it")
  const found = `${count} of ${max} flows`
  if (count > max * 0.9)
    return warn(
      "conntrack",
      `${found}: nearly full, new connections will be dropped`,
      "raise net.netfilter.nf_conntrack_max"
    )
  return readText("/proc/sys/net/netfilter/nf_conntrack_acct")?.trim() === "1"
    ? ok("conntrack", `${found}, bytes counted`)
    : warn(
        "conntrack",
        `${found}, bytes not counted`,
        "sysctl -w net.netfilter.nf_conntrack_acct=1, to see bytes per mapping"
      )
}

const checkDescriptors = (): Check => {
  const line = /^Max open files\s+(\d+|unlimited)\s+(\d+|unlimited)/m.exec(
    readText("/proc/self/limits") ?? ""
  )
  const [soft, hard] = [line?.[1] ?? "?", line?.[2] ?? "?"]
  const found = `${soft} descriptors, at most ${hard}`
  return Number(hard) < 65536
    ? warn("descriptors", `${found}; every published port takes one`, "raise LimitNOFILE= or ulimit -Hn")
    : ok("descriptors", found)
}

/** Whether packets that our table redirects pass an Engine's own rules, if there are any. */
export const checkEngineFilter = async (): Promise<Check> => {
  const chains = await findChains()
  if (chains.length > 0) {
    const names = chains.map(({ command }) => command).join(", ")
    return chains.every(({ accepts }) => accepts)
      ? ok("Engine's filter", `DOCKER-USER accepts what is redirected (${names})`)
      : ok("Engine's filter", `DOCKER-USER is there (${names}); serve --watch and watch put one rule in it`)
  }
  return /^table ip6? docker-bridges$/m.test(run("nft", "list", "tables").output)
    ? warn(
        "Engine's filter",
        "the Engine's firewall backend is nftables, which has no DOCKER-USER: it drops what others redirect",
        `start dockerd with --bridge-accept-fwmark=${markText(defaultMark)}, and portmapper with --accept-fwmark ${markText(defaultMark)}`
      )
    : ok("Engine's filter", "none here")
}
