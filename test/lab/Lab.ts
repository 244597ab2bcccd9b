/**
 * A private network to try the plugin in: an outside client, the host, and containers on its bridges, each a network
 * namespace. A scope makes it and removes it, whatever happens, with every process that is still inside. Labs never
 * meet: names contain the process, a random part and a counter. The next lab removes what a killed process left
 * behind. `Topology.ts` has the addresses.
 */
import { randomBytes } from "node:crypto"
import { existsSync, readdirSync } from "node:fs"
import { Effect, type Scope } from "effect"
import { make as makeNamespace, type Namespace } from "./Namespace.ts"
import { check, LabError, run } from "./Process.ts"
import { type LabOptions, roles, setUp } from "./Topology.ts"

export interface Lab {
  /** The common prefix of its namespaces' names. */
  readonly prefix: string
  readonly host: Namespace
  readonly client: Namespace
  readonly c1: Namespace
  readonly c2: Namespace
  /** Any namespace by its role, such as `client2` or a container of another network. Throws where there is none. */
  readonly get: (role: string) => Namespace
  readonly namespaces: ReadonlyArray<Namespace>
}

export const make: (options?: LabOptions) => Effect.Effect<Lab, LabError, Scope.Scope> = Effect.fn(
  "Lab.make"
)(function* (options: LabOptions = {}) {
  counter++
  const prefix = `${family}${process.pid}-${instance}${counter}-`
  yield* removeLeftovers
  const all = new Map(roles(options).map((role) => [role, makeNamespace(role, prefix + role)]))
  const namespaces = [...all.values()]
  yield* Effect.addFinalizer(() => takeDown(namespaces))
  yield* check("sh", ["-e"], { input: setUp(options, (role) => prefix + role), label: "Lab.make" })
  const get = (role: string) => {
    const namespace = all.get(role)
    if (namespace === undefined)
      throw new LabError({
        operation: "Lab.get",
        detail: `no ${role} here, only ${[...all.keys()].join(", ")}`
      })
    return namespace
  }
  return {
    prefix,
    host: get("host"),
    client: get("client"),
    get c1() {
      return get("c1")
    },
    get c2() {
      return get("c2")
    },
    get,
    namespaces
  }
})

const family = "portmapper-lab-"
const instance = randomBytes(2).toString("hex")
let counter = 0

/** Stops agents first, then other processes inside, then removes the namespaces; skips those that were never made. */
const takeDown = (namespaces: ReadonlyArray<Namespace>): Effect.Effect<void> =>
  Effect.forEach(namespaces, (namespace) => namespace.agent.stop, { concurrency: "unbounded" }).pipe(
    Effect.andThen(remove(namespaces.map((namespace) => namespace.name)))
  )

const remove = (names: ReadonlyArray<string>): Effect.Effect<void> =>
  Effect.suspend(() => {
    const there = names.filter((name) => existsSync(`/run/netns/${name}`))
    if (there.length === 0) return Effect.void
    const script = [
      `for name in ${there.join(" ")}; do for pid in $(ip netns pids $name); do kill -9 $pid; done; done`,
      `ip -force -batch - <<END`,
      ...there.map((name) => `netns del ${name}`),
      "END"
    ]
    return Effect.ignore(run("sh", [], { input: script.join("\n") }))
  })

const removeLeftovers: Effect.Effect<void> = Effect.suspend(() => {
  if (!existsSync("/run/netns")) return Effect.void
  const stale = readdirSync("/run/netns").filter((name) => {
    const [, pid] = /^portmapper-lab-(\d+)-/.exec(name) ?? []
    return pid !== undefined && !existsSync(`/proc/${pid}`)
  })
  return remove(stale)
})
