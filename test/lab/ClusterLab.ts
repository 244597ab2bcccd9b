/**
 * Hosts with a real plugin each and an etcd of one or more members, each in a namespace on one bridge. A mapping of a host
 * leads to a server of its own, on its own address.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { Effect, type Scope } from "effect"
import { configure, documented, password } from "../etcd/users.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"
import { until } from "../support/until.ts"
import { type EtcdCluster, startEtcd } from "./Etcd.ts"
import { type Lab, make as makeLab } from "./Lab.ts"
import type { Namespace } from "./Namespace.ts"
import * as Plugin from "./Plugin.ts"
import { LabError } from "./Process.ts"

export interface ClusterHost {
  readonly name: string
  readonly namespace: Namespace
  /** Of its last start. */
  readonly plugin: () => Plugin.Plugin
  /** Starts it again on its state. */
  readonly start: Effect.Effect<void, LabError, Scope.Scope>
  /** Maps `8080`, `8000-8010` or `0`; returns the port, or the error. */
  readonly map: (port: number | string) => Effect.Effect<number | string, LabError>
  /** Everything without a port. */
  readonly unmap: (port?: number) => Effect.Effect<void, LabError>
  /** Every mapping as `8080 live`, with who holds it where it is in conflict; sorted. */
  readonly states: Effect.Effect<ReadonlyArray<string>, LabError>
  /** What the cluster looks like from here: `8080 a`, sorted. */
  readonly cluster: Effect.Effect<ReadonlyArray<string>, LabError>
  /** Nothing passes between the host and etcd until `mend`. */
  readonly cut: Effect.Effect<void, LabError>
  readonly mend: Effect.Effect<void, LabError>
}

export interface ClusterLab {
  readonly etcd: EtcdCluster
  readonly hosts: Readonly<Record<HostName, ClusterHost>>
  /** Whether a client outside gets an answer at this port of a host. */
  readonly answers: (host: ClusterHost, port: number) => Effect.Effect<boolean, unknown>
}

export type HostName = "a" | "b" | "c"

const members = ["e0", "e1", "e2"] as const

const addressOf = (role: string) =>
  `172.31.0.${role.startsWith("e") ? 20 + Number(role.slice(1)) : 10 + role.charCodeAt(0) - 97}`

const serverPort = 9000

export const makeClusterLab = Effect.fn("ClusterLab.make")(function* (options: {
  readonly members: 1 | 3
  readonly hosts: ReadonlyArray<HostName>
  /** Default 8s. */
  readonly ttl?: string
  /** The hosts are a user of etcd, with the rights that docs/ETCD.md gives it. */
  readonly users?: boolean
}): Effect.fn.Return<ClusterLab, LabError | unknown, Scope.Scope> {
  const places = members.slice(0, options.members)
  const containers = Object.fromEntries(
    [...options.hosts, ...places].map((role) => [role, { ipv4: addressOf(role) }])
  )
  const lab = yield* makeLab({ network: { ipv4: "172.31.0.1/24", containers } })
  const etcd = yield* startEtcd({
    places: places.map((role) => ({ address: addressOf(role), ...lab.get(role) }))
  })
  const login = options.users === true ? yield* addUsers(lab.host, etcd.urls) : []
  const common = ["--cluster", etcd.urls, "--cluster-ttl", options.ttl ?? "8s", ...login]
  const started = yield* Effect.forEach(options.hosts, (name) => startHost(lab, name, places, common), {
    concurrency: "unbounded"
  })
  const hosts = Object.fromEntries(started.map((host) => [host.name, host]))
  const absent = new Proxy({} as ClusterHost, {
    get: () => {
      throw new LabError({ operation: "ClusterLab", detail: "there is no such host" })
    }
  })
  return {
    etcd,
    hosts: { ...{ a: absent, b: absent, c: absent }, ...hosts },
    answers: (host, port) =>
      Effect.map(
        lab.host.agent.tcp({ host: addressOf(host.name), port, payload: "x", timeoutMillis: 2_000 }),
        ({ answer }) => answer?.who === host.name
      )
  }
})

/** Returns the options of a host; all are the same user. */
const addUsers = Effect.fnUntraced(function* (namespace: Namespace, urls: string) {
  const [commands = ""] = documented()
  yield* configure(urls, commands, namespace.check)
  const file = join(yield* temporaryFolder, "password")
  writeFileSync(file, password)
  return ["--cluster-user", "host-a", "--cluster-password-file", file]
})

const startHost = Effect.fnUntraced(function* (
  lab: Lab,
  name: HostName,
  places: ReadonlyArray<string>,
  options: ReadonlyArray<string>
) {
  const namespace = lab.get(name)
  const folder = yield* temporaryFolder
  yield* namespace.agent.echo({ protocol: "tcp", port: serverPort })
  let current: Plugin.Plugin | undefined
  const start = Effect.map(
    Plugin.start(namespace, { folder, arguments: [...options, "--cluster-host", name] }),
    (plugin) => {
      current = plugin
    }
  )
  yield* start
  const plugin = () => {
    if (current === undefined) throw new LabError({ operation: name, detail: "it does not run" })
    return current
  }
  const entry = (port: number | string) => `tcp 0.0.0.0:${port} ${addressOf(name)}:${serverPort}`
  const listed = (scope: string) =>
    Effect.map(
      Effect.tryPromise({
        try: () =>
          request(
            plugin().socket,
            "/PortMapper.ListPorts",
            JSON.stringify(scope === "" ? {} : { Scope: scope })
          ),
        catch: (error) => new LabError({ operation: "ListPorts", detail: String(error) })
      }),
      ({ body }) => (JSON.parse(body) as { readonly Mappings: ReadonlyArray<Listed> }).Mappings
    )
  const host: ClusterHost = {
    name,
    namespace,
    plugin,
    start,
    map: (port) =>
      Effect.map(plugin().map([entry(port)]), ({ error, bindings }) =>
        error === "" ? (bindings[0]?.FrontendPort ?? 0) : error
      ),
    unmap: (port) =>
      Effect.gen(function* () {
        const rows = (yield* listed("")).filter(
          ({ FrontendPort }) => port === undefined || FrontendPort === port
        )
        const bindings = rows.map((row) => ({
          ...{ Proto: row.Proto, FrontendIP: row.FrontendIP, FrontendPort: row.FrontendPort },
          ...{ BackendIP: row.BackendIP, BackendPort: row.BackendPort },
          ...{ DiscardReq: false, AllowForwarding: false, NAT: null, Error: null }
        }))
        const { status, body } = yield* plugin().unmap(bindings)
        if (status !== 200) return yield* new LabError({ operation: "UnmapPorts", detail: body })
      }),
    states: Effect.map(listed(""), (all) =>
      all
        .map(({ FrontendPort, State, Reason }) =>
          [FrontendPort, State, ...(/held by host \w+/.exec(Reason) ?? [])].join(" ")
        )
        .sort()
    ),
    cluster: Effect.map(listed("cluster"), (all) =>
      all.map(({ FrontendPort, Host }) => `${FrontendPort} ${Host}`).sort()
    ),
    cut: Effect.asVoid(namespace.sh(cutOff(places.map(addressOf)))),
    mend: Effect.asVoid(namespace.sh("nft delete table inet cut"))
  }
  return host
})

interface Listed {
  readonly Proto: number
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly BackendIP: string
  readonly BackendPort: number
  readonly State: string
  readonly Reason: string
  readonly Host: string
}

const cutOff = (addresses: ReadonlyArray<string>) => `
nft -f - <<END
table inet cut {
  chain out { type filter hook output priority 0; ip daddr { ${addresses.join(", ")} } drop; }
  chain in { type filter hook input priority 0; ip saddr { ${addresses.join(", ")} } drop; }
}
END
`

/** Polls until the port is mapped. */
export const mapsSoon = (host: ClusterHost, port: number): Effect.Effect<number | string, LabError> =>
  until(host.map(port), (mapped) => mapped === port)
