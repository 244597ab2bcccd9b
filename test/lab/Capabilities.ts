/**
 * What this machine can do of what lab tests need, found out by trying, once in each process. Nothing is left behind.
 */
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { release } from "node:os"

/** `lab`: root, network namespaces, veth and bridge, nftables with what our table uses, `ss`. */
export type Need =
  | "lab"
  | "conntrack"
  | "sctp"
  | "dockerd"
  | "busybox"
  | "go"
  | "python"
  | "cni"
  | "podman"
  | "haproxy"
  | "nginx"

/** Where Debian has the plugins of the CNI project. */
export const cniPlugins = "/usr/lib/cni"

/** For each need what is missing, in words; `undefined` where nothing is. */
export type Capabilities = Readonly<Record<Need, string | undefined>>

export const capabilities = (): Capabilities => {
  known ??= {
    lab: labMissing(),
    conntrack: command("conntrack", "--version") ? undefined : "the conntrack tool",
    sctp: hasSctp() ? undefined : "SCTP in the kernel",
    dockerd: command("dockerd", "--version") ? undefined : "dockerd",
    busybox: isStatic() ? undefined : "a static busybox (Debian: busybox-static)",
    go: command("go", "version") ? undefined : "Go",
    python: command("python3", "--version") ? undefined : "Python 3",
    cni: existsSync(`${cniPlugins}/bridge`) ? undefined : "containernetworking-plugins",
    podman: command("podman", "--version") && command("busybox", "true") ? undefined : "podman and busybox",
    haproxy: command("haproxy", "-v") ? undefined : "HAProxy",
    nginx: command("nginx", "-v") ? undefined : "nginx"
  }
  return known
}

/** What is missing of these needs, in their order. */
export const missing = (needs: ReadonlyArray<Need>): ReadonlyArray<string> =>
  needs.flatMap((need) => capabilities()[need] ?? [])

let known: Capabilities | undefined

const command = (name: string, ...args: ReadonlyArray<string>): boolean =>
  spawnSync(name, args, { stdio: "ignore", timeout: 5_000 }).status === 0

/** As what a container has for an image: nothing else, no library either. */
const isStatic = (): boolean =>
  spawnSync("ldd", ["/bin/busybox"], { encoding: "utf8", timeout: 5_000 }).stderr?.includes(
    "not a dynamic"
  ) === true

const labMissing = (): string | undefined => {
  if (process.getuid?.() !== 0) return "root and nftables"
  if (!command("ip", "-V")) return "the ip command"
  if (!command("ss", "-V")) return "the ss command"
  if (!command("nft", "--version")) return "nftables"
  const tried = spawnSync("sh", ["-e"], { input: trial(), encoding: "utf8", timeout: 10_000 })
  return tried.status === 0
    ? undefined
    : `network namespaces with nftables (${(tried.stderr || "timed out").trim().split("\n")[0]})`
}

const trial = () => {
  const name = `portmapper-lab-${process.pid}-trial`
  return `
ip netns add ${name}
trap 'ip netns del ${name}' EXIT
ip -n ${name} link add name br0 type bridge
ip -n ${name} link add name v0 type veth peer name v1
ip -n ${name} address add fd99::1/64 dev br0
ip netns exec ${name} nft -f - <<END
table inet portmapper {
  map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; counter; }
  chain published { meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4; }
  chain prerouting { type nat hook prerouting priority -105; fib daddr type local jump published; }
}
END
`
}

/** Loaded, or there to be loaded when the first socket asks for it. */
const hasSctp = (): boolean => {
  if (existsSync("/proc/sys/net/sctp")) return true
  const modules = `/lib/modules/${release()}`
  if (existsSync(`${modules}/kernel/net/sctp`)) return readdirSync(`${modules}/kernel/net/sctp`).length > 0
  const builtin = `${modules}/modules.builtin`
  return existsSync(builtin) && /\/sctp\.ko$/m.test(readFileSync(builtin, "utf8"))
}
