/**
 * The real plugin on its own host, as a target of the harness: its answers over its socket, and what it holds
 * according to the kernel (`ss`, `nft`) and its record. One plugin serves many scripts; it is killed and started
 * again where a script says so.
 */
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Effect, Scope } from "effect"
import { httpWire } from "../../adapters/docker/HttpWire.ts"
import { socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { addressUnsafe, hostText } from "../../src/protocol/Address.ts"
import {
  type Call,
  type Elsewhere,
  type HostHoldings,
  type ModelHost,
  type RemoteTarget,
  wireTarget
} from "../../src/testing/index.ts"
import type { Held as AgentHeld } from "../lab/Agent.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import type { LabError } from "../lab/Process.ts"

/** The host of `labTarget`, for the model. */
export const labHost: ModelHost = {
  ephemeral: { range: { first: 40000, last: 40007 }, reserved: [{ first: 40003, last: 40004 }] },
  capabilities: {
    defaultMode: "nat",
    natUnavailable: undefined,
    marksAccepted: false,
    ipv6: true,
    relayed: ["tcp", "udp"]
  }
}

/** A plugin for many scripts: each begins without a mapping and without a taken port. */
export const makeLabTarget = Effect.gen(function* () {
  const { host } = yield* Lab.make({
    hostAddresses: ["192.0.2.1/24", "192.0.2.2/24", "2001:db8::1/64"],
    hostSysctls: { "net.ipv4.ip_local_reserved_ports": "40003-40004" }
  })
  yield* host.sh(
    "ip link add eth0 type veth peer name eth1; ip link set eth1 up; ip link set eth0 up; ip address add fe80::1/64 dev eth0 nodad"
  )
  const folder = yield* Plugin.temporaryFolder
  const scope = yield* Effect.scope
  const taken = new Map<string, AgentHeld>()
  const start = Scope.provide(
    Plugin.start(host, { folder, arguments: ["--ephemeral", "40000-40007"], startMillis: 60_000 }),
    scope
  )
  let plugin = yield* start

  const over = (call: Call) => wireTarget(httpWire(socketAddress(plugin.socket))).call(call)
  const listed = Effect.suspend(() => wireTarget(httpWire(socketAddress(plugin.socket))).held)

  const take = Effect.fnUntraced(function* (frontend: Elsewhere) {
    const { proto, host: address, port } = frontend
    const held = yield* host.agent.hold({ protocol: proto === 6 ? "tcp" : "udp", host: address, port })
    taken.set(keyOf(frontend), held)
  }, Effect.orDie)

  const free = Effect.fnUntraced(function* (frontend: Elsewhere) {
    const held = taken.get(keyOf(frontend))
    taken.delete(keyOf(frontend))
    if (held !== undefined) yield* held.stop
  }, Effect.orDie)

  const restart = Effect.fnUntraced(function* (meanwhile?: Elsewhere) {
    yield* plugin.process.kill("SIGKILL")
    yield* plugin.process.wait()
    if (meanwhile !== undefined) yield* take(meanwhile)
    plugin = yield* start
  }, Effect.orDie)

  const held: Effect.Effect<Partial<HostHoldings>> = Effect.gen(function* () {
    const stored = yield* recorded(join(folder, "state"))
    return {
      ...(yield* listed),
      sockets: yield* sockets(host, plugin.process.pid),
      rules: rulesOf(yield* contents(host)),
      stored
    }
  }).pipe(Effect.orDie)

  const target: RemoteTarget = { call: over, held, host: { take, free, restart } }

  /** For one script: first removes what an earlier, failed one left. */
  return Effect.gen(function* () {
    for (const each of taken.values()) yield* each.stop
    taken.clear()
    const { body } = yield* plugin.call("ListPorts", {})
    const { Mappings } = JSON.parse(body) as { readonly Mappings: ReadonlyArray<Plugin.WireBinding> }
    if (Mappings.length > 0) yield* plugin.unmap(Mappings)
    return target
  }).pipe(Effect.orDie)
})

const keyOf = ({ proto, host, port }: Elsewhere): string => `${proto} ${host} ${port}`

/** `0.0.0.0:8080/tcp`; for an address with a zone `ss` shows the zone behind the brackets. */
const sockets = (host: Namespace, pid: number): Effect.Effect<ReadonlyArray<string>, LabError> =>
  Effect.map(host.check("ss", ["-H", "-lntup"]), (text) =>
    text
      .split("\n")
      .filter((line) => line.includes(`pid=${pid},`))
      .map((line) => {
        const [protocol = "", , , , local = ""] = line.trim().split(/\s+/)
        const [, address = "", zone = "", port = ""] = /^\[?([^\]%]*)\]?(%\w+)?\]?:(\d+)$/.exec(local) ?? []
        return `${endpointText(address + zone, port)}/${protocol}`
      })
      .sort()
  )

/**
 * The kernel's maps as the model's lines: a redirected frontend is in a map of its scope, a limited one also in a
 * set, with its sources in another; a guarded one is in `loopback`.
 */
const rulesOf = (found: Readonly<Record<string, ReadonlyArray<string>>>): ReadonlyArray<string> => {
  const rules: Array<string> = []
  for (const family of [4, 6]) {
    for (const scope of ["any", "addr"]) {
      const name = `${scope}${family}`
      const redirected = new Map((found[name] ?? []).map((line) => line.split(" : ") as [string, string]))
      const limited = found[`limited_${name}`] ?? []
      const sources = (key: string) => {
        if (!limited.includes(key)) return ""
        const networks = (found[`allowed_${name}`] ?? [])
          .filter((line) => line.startsWith(`${key} . `))
          .map((line) => line.slice(key.length + 3))
        return ` from ${networks.join(",") || "no network"}`
      }
      const hairpin = [...redirected].flatMap(([key, backend]) =>
        key.includes("sctp") ? [] : [`${key} . ${backend.split(" . ")[0]}`]
      )
      if ((found[`hairpin_${name}`] ?? []).toSorted().join() !== hairpin.sort().join())
        rules.push(`hairpin is not what is redirected: ${found[`hairpin_${name}`]}`)
      for (const [key, backend] of redirected) {
        const [address = "", port] = backend.split(" . ")
        rules.push(`Redirect ${frontendOf(key, family)} -> ${endpointText(address, port)}${sources(key)}`)
      }
      for (const key of limited)
        if (!redirected.has(key)) rules.push(`Limit ${frontendOf(key, family)}${sources(key)}`)
      // Leftovers of a removed allow-list would admit its sources once the port has another one.
      for (const line of found[`allowed_${name}`] ?? [])
        if (!limited.some((key) => line.startsWith(`${key} . `))) rules.push(`allowed for nothing: ${line}`)
      if ((found[`denied_${name}`] ?? []).join() !== limited.join())
        rules.push(`denied is not what limited is: ${found[`denied_${name}`]}`)
    }
    for (const key of found[`loopback${family}`] ?? []) rules.push(`Guard ${frontendOf(key, family)}`)
  }
  return rules.sort()
}

/**
 * `tcp . 8080` or `192.0.2.1 . tcp . 8080`. The kernel's tables know no zones: only one interface of the lab has a
 * link-local address.
 */
const frontendOf = (key: string, family: number): string => {
  const words = key.split(" . ")
  const [port, protocol, address = family === 4 ? "0.0.0.0" : "::"] = words.reverse()
  return `${endpointText(address.startsWith("fe80:") ? `${address}%eth0` : address, port)}/${protocol}`
}

/** The plugin records an answer a moment after it: waits for that. */
const recorded = Effect.fnUntraced(function* (state: string): Effect.fn.Return<ReadonlyArray<string>> {
  for (let looks = 1; ; looks++) {
    const lines = recordedNow(state)
    if (looks === 500 || lines.every((line) => line.endsWith(" answered"))) return lines
    yield* Effect.sleep("20 millis")
  }
})

/** A running process locks the file: reads a copy, as the next process would find it. */
const recordedNow = (state: string): ReadonlyArray<string> => {
  const copy = mkdtempSync(join(tmpdir(), "portmapper-record-"))
  for (const name of ["mappings.db", "mappings.db-wal"])
    if (existsSync(join(state, name))) cpSync(join(state, name), join(copy, name))
  const database = new DatabaseSync(join(copy, "mappings.db"))
  try {
    const rows = database
      .prepare("SELECT state, protocol, host, port, backend_host, backend_port, mode FROM mapping")
      .all()
    return rows
      .map(({ state, protocol, host, port, backend_host, backend_port, mode }) => {
        const name = { 6: "tcp", 17: "udp" }[Number(protocol)] ?? `${protocol}`
        const where = mode === "routed" ? name : `${endpointText(host, port)}/${name}`
        return `${where} -> ${endpointText(backend_host, backend_port)} ${mode} ${state}`
      })
      .sort()
  } finally {
    database.close()
    rmSync(copy, { recursive: true })
  }
}

const endpointText = (address: unknown, port: unknown): string =>
  `${hostText(addressUnsafe(String(address)))}:${port}`
