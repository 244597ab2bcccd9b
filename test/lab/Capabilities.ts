/**
 * What this machine has of what tests need beyond Node: each found out by trying, once in each process and only when a
 * test needs it. Nothing is left behind.
 */
import { spawnSync } from "node:child_process"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { release } from "node:os"

interface Capability {
  /** The name to print when it is missing. */
  readonly words: string
  /** The Debian package that contains it; none where the kernel or the user provides it. */
  readonly debian?: string
  /** Only `npm run test:long` needs it. */
  readonly isForLong?: true
  readonly isThere: () => boolean
}

/** Where Debian puts the plugins of the CNI project. */
export const cniPlugins = "/usr/lib/cni"

const command = (name: string, ...args: ReadonlyArray<string>): boolean =>
  spawnSync(name, args, { stdio: "ignore", timeout: 60_000 }).status === 0

const program = (name: string, debian = name, option = "--version"): Capability => ({
  words: name,
  debian,
  isThere: () => command(name, option)
})

const capabilities = {
  root: { words: "root", isThere: () => process.getuid?.() === 0 },
  ip: {
    words: "ip and ss",
    debian: "iproute2",
    isThere: () => command("ip", "-V") && command("ss", "-V")
  },
  nft: program("nft", "nftables"),
  namespaces: {
    words: "network namespaces with nftables",
    isThere: () => spawnSync("sh", ["-e"], { input: trial(), timeout: 60_000 }).status === 0
  },
  network: {
    words: "a network namespace of one's own",
    isThere: () => command("unshare", "--net", "true")
  },
  mounts: {
    words: "mounts of one's own",
    isThere: () => command("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt")
  },
  sctp: { words: "SCTP in the kernel", isThere: () => hasSctp() },
  conntrack: program("conntrack"),
  iptables: program("iptables"),
  dockerd: {
    words: "dockerd and docker",
    debian: "docker.io",
    isThere: () => command("dockerd", "--version") && command("docker", "--version")
  },
  compose: {
    words: "docker-compose",
    debian: "docker-compose",
    isForLong: true,
    isThere: () => command("docker-compose", "version")
  },
  busybox: { words: "a static busybox", debian: "busybox-static", isThere: () => isStatic("/bin/busybox") },
  go: program("go", "golang-go", "version"),
  python: program("python3"),
  cni: {
    words: "the CNI plugins",
    debian: "containernetworking-plugins",
    isThere: () => existsSync(`${cniPlugins}/bridge`)
  },
  podman: program("podman"),
  etcd: program("etcd", "etcd-server"),
  etcdctl: program("etcdctl", "etcd-client", "version"),
  haproxy: program("haproxy", "haproxy", "-v"),
  nginx: program("nginx", "nginx", "-v"),
  curl: program("curl"),
  chromium: program("chromium"),
  activation: program("systemd-socket-activate", "systemd"),
  sysctl: program("sysctl", "procps"),
  terminal: {
    words: "script, which makes a terminal",
    debian: "bsdutils",
    isThere: () => command("script", "-qec", "stty size", "/dev/null")
  },
  localhost: {
    words: "an address for localhost",
    isThere: () =>
      command(process.execPath, "-e", "require('dns').lookup('localhost', (e) => process.exit(e ? 1 : 0))")
  },
  npm: program("npm"),
  promtool: { ...program("promtool", "prometheus"), isForLong: true },
  mmdebstrap: { ...program("mmdebstrap"), isForLong: true },
  lintian: { ...program("lintian"), isForLong: true },
  strip: { ...program("strip", "binutils"), isForLong: true },
  bash: program("bash"),
  zsh: program("zsh"),
  fish: program("fish")
} satisfies Record<string, Capability>

export type Need = keyof typeof capabilities

/** The needs of the gate. */
export const needs = (Object.keys(capabilities) as ReadonlyArray<Need>).filter(
  (need) => (capabilities[need] as Capability).isForLong !== true
)

/** The needs of each lab: a user with the rights, the tools for its networks, a kernel with our table's features. */
export const labNeeds: ReadonlyArray<Need> = ["root", "ip", "nft", "namespaces"]

/** Those of these needs that this machine does not meet, in their order. */
export const lacking = (wanted: ReadonlyArray<Need>): ReadonlyArray<Need> => {
  const lacks = wanted.filter((need) => need !== "namespaces" && !isMet(need))
  // Trying namespaces needs what a lab needs; without that there is nothing to try.
  const tries = wanted.includes("namespaces") && ["root", "ip", "nft"].every((need) => isMet(need as Need))
  return tries && !isMet("namespaces") ? [...lacks, "namespaces"] : lacks
}

/** As text for a title: `needs root and nft`. */
export const needsText = (lacks: ReadonlyArray<Need>): string =>
  `needs ${lacks.map((need) => capabilities[need].words).join(" and ")}`

/** The Debian packages that contain them, sorted. */
export const packagesOf = (lacks: ReadonlyArray<Need>): ReadonlyArray<string> =>
  [...new Set(lacks.flatMap((need) => (capabilities[need] as Capability).debian ?? []))].sort()

/** Those that no package provides, as text. */
export const unpackaged = (lacks: ReadonlyArray<Need>): ReadonlyArray<string> =>
  lacks.filter((need) => packagesOf([need]).length === 0).map((need) => capabilities[need].words)

const known = new Map<Need, boolean>()

const isMet = (need: Need): boolean => {
  const met = known.get(need) ?? capabilities[need].isThere()
  known.set(need, met)
  return met
}

/** Runs it with nothing else in its root, as in a container: no library either. */
const isStatic = (path: string): boolean =>
  spawnSync("ldd", [path], { encoding: "utf8" }).stderr?.includes("not a dynamic") === true

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

/** Loaded, or loadable when the first socket needs it. */
const hasSctp = (): boolean => {
  if (existsSync("/proc/sys/net/sctp")) return true
  const modules = `/lib/modules/${release()}`
  if (existsSync(`${modules}/kernel/net/sctp`)) return readdirSync(`${modules}/kernel/net/sctp`).length > 0
  const builtin = `${modules}/modules.builtin`
  return existsSync(builtin) && /\/sctp\.ko$/m.test(readFileSync(builtin, "utf8"))
}
