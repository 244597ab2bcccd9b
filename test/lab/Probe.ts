/**
 * Reads the sockets of a namespace, its tracked connections and the descriptors of a process. Everything comes as
 * sorted lines or plain records, so that a test compares the whole before and after. `Nft.ts` reads the tables.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { Effect } from "effect"
import type { Namespace } from "./Namespace.ts"
import { LabError } from "./Process.ts"

export interface BoundSocket {
  readonly protocol: "tcp" | "udp" | "sctp"
  /** `*` is an IPv6 socket that accepts IPv4 too. */
  readonly address: string
  readonly port: number
  readonly pids: ReadonlyArray<number>
}

/** Listening TCP and SCTP sockets and unconnected UDP ones, including placeholders that drop everything. */
export const boundSockets = (namespace: Namespace): Effect.Effect<ReadonlyArray<BoundSocket>, LabError> =>
  Effect.map(namespace.check("ss", ["-H", "-lntuSp"]), (text) =>
    text.split("\n").flatMap((line) => {
      const [protocol, , , , local, , users = ""] = line.trim().split(/\s+/)
      const [, address, port] = /^\[?([^\]]*?)\]?(?:%\w+)?:(\d+)$/.exec(local ?? "") ?? []
      if (address === undefined || (protocol !== "tcp" && protocol !== "udp" && protocol !== "sctp"))
        return []
      const pids = [...users.matchAll(/pid=(\d+)/g)].map(([, pid]) => Number(pid))
      return [{ protocol, address, port: Number(port), pids: [...new Set(pids)] }]
    })
  )

/** The same as sorted text, such as `tcp [::]:8080`; with `pid` only the sockets of that process. */
export const listening = (
  namespace: Namespace,
  options: { readonly pid?: number } = {}
): Effect.Effect<ReadonlyArray<string>, LabError> =>
  Effect.map(boundSockets(namespace), (sockets) =>
    sockets
      .filter(({ pids }) => options.pid === undefined || pids.includes(options.pid))
      .map(({ protocol, address, port }) => `${protocol} ${join(address, port)}`)
      .sort()
  )

export interface Flow {
  readonly source: string
  readonly destination: string
}

/** A tracked connection. Ends are `10.99.0.2:5000` or `[fd99::2]:5000`, and the bare address where there are no ports. */
export interface Connection {
  readonly protocol: string
  /** TCP's and SCTP's, such as `ESTABLISHED`. */
  readonly state?: string
  readonly original: Flow
  /** The expected reply direction: after a redirect its source is the backend. */
  readonly reply: Flow
  readonly replied: boolean
  readonly assured: boolean
  readonly mark: number
}

/** Tracked connections of both families. None where nothing in the namespace enabled tracking. */
export const conntrack = (namespace: Namespace): Effect.Effect<ReadonlyArray<Connection>, LabError> =>
  Effect.map(
    namespace.sh(
      "cat /proc/net/nf_conntrack 2>/dev/null || for f in ipv4 ipv6; do conntrack -L -f $f -o extended 2>/dev/null; done"
    ),
    (text) => text.split("\n").flatMap((line) => (line.includes("src=") ? [connection(line)] : []))
  )

const connection = (line: string): Connection => {
  const words = line.trim().split(/\s+/)
  const state = words.find((word) => /^[A-Z][A-Z_0-9]+$/.test(word))
  const values = (key: string) =>
    words.filter((word) => word.startsWith(`${key}=`)).map((word) => word.slice(key.length + 1))
  const flow = (index: number): Flow => ({
    source: end(values("src")[index], values("sport")[index]),
    destination: end(values("dst")[index], values("dport")[index])
  })
  return {
    protocol: words[2] ?? "",
    ...(state === undefined ? {} : { state }),
    original: flow(0),
    reply: flow(1),
    replied: !words.includes("[UNREPLIED]"),
    assured: words.includes("[ASSURED]"),
    mark: Number(values("mark")[0] ?? 0)
  }
}

/** The kernel's file writes IPv6 addresses in full. */
const end = (address = "", port: string | undefined) => {
  const short = address.includes(":") ? new URL(`http://[${address}]`).hostname.slice(1, -1) : address
  return port === undefined ? short : join(short, Number(port))
}

const join = (address: string, port: number) =>
  address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`

export interface Descriptor {
  readonly fd: number
  /** The link's target: a path, `pipe:[123]`, `anon_inode:[eventpoll]`. */
  readonly target: string
  /** The kind of a socket: `netlink:12`, `tcp`, `udp6`, `unix`, `raw`, `packet`. `undefined` for other descriptors. */
  readonly socket?: string
}

/** The open descriptors of a process, by number. */
export const descriptors = (pid: number): Effect.Effect<ReadonlyArray<Descriptor>, LabError> =>
  Effect.try({
    try: () => {
      const sockets = socketsByInode(pid)
      return readdirSync(`/proc/${pid}/fd`)
        .flatMap((name): ReadonlyArray<Descriptor> => {
          const target = linkTarget(`/proc/${pid}/fd/${name}`)
          if (target === undefined) return []
          const [, inode] = /^socket:\[(\d+)\]$/.exec(target) ?? []
          const socket = inode === undefined ? undefined : (sockets.get(inode) ?? "socket")
          return [{ fd: Number(name), target, ...(socket === undefined ? {} : { socket }) }]
        })
        .sort((one, other) => one.fd - other.fd)
    },
    catch: (error) => new LabError({ operation: `descriptors of ${pid}`, detail: String(error) })
  })

/**
 * Each kind of open descriptor with its count, such as `netlink:12 × 2`, sorted: equal before and after
 * where nothing leaks, whatever the numbers.
 */
export const descriptorKinds = (pid: number): Effect.Effect<ReadonlyArray<string>, LabError> =>
  Effect.map(descriptors(pid), (all) => {
    const counts = new Map<string, number>()
    for (const { target, socket } of all) {
      const kind = socket ?? target.replace(/:\[\d+\]$/, "")
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
    }
    return [...counts].map(([kind, count]) => `${kind} × ${count}`).sort()
  })

/** Closed between the listing and the read. */
const linkTarget = (path: string) => {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

/** Which column of `/proc/PID/net/KIND` has the inode. */
const inodeColumns = { tcp: 9, tcp6: 9, udp: 9, udp6: 9, raw: 9, raw6: 9, unix: 6, netlink: 9, packet: 8 }

const socketsByInode = (pid: number): ReadonlyMap<string, string> => {
  const found = new Map<string, string>()
  for (const [kind, column] of Object.entries(inodeColumns)) {
    for (const line of readLines(`/proc/${pid}/net/${kind}`).slice(1)) {
      const columns = line.trim().split(/\s+/)
      const inode = columns[column]
      if (inode !== undefined) found.set(inode, kind === "netlink" ? `netlink:${columns[1]}` : kind)
    }
  }
  return found
}

const readLines = (path: string): ReadonlyArray<string> => {
  try {
    return readFileSync(path, "utf8").trimEnd().split("\n")
  } catch {
    return []
  }
}
