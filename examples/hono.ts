/**
 * A port mapper without a host, on Cloudflare Workers under Hono: `POST /HOST/PortMapper.MapPorts`. A Durable
 * Object for each HOST assigns its ports and keeps what it granted in its own SQLite storage, through restarts of
 * the runtime.
 */
import * as Effect from "effect/Effect"
import { Hono } from "hono"
import { Driver, type Entry, type PortRequest, type ReleasedBinding } from "portmapper"
import { toWebHandler } from "portmapper/fetch"

/** The part of the runtime's API used here; `@cloudflare/workers-types` has all of it. */
interface Storage {
  readonly sql: {
    readonly exec: (
      query: string,
      ...values: ReadonlyArray<string | number>
    ) => { readonly toArray: () => Array<Row> }
  }
}
type Row = Readonly<Record<string, string | number>>
interface Namespace {
  readonly idFromName: (name: string) => unknown
  readonly get: (id: unknown) => { readonly fetch: (request: Request) => Promise<Response> }
}

const rangeOf = (ports: PortRequest): readonly [first: number, last: number] => {
  if (ports._tag === "Ephemeral") return [30_000, 32_767]
  return ports._tag === "Exact" ? [ports.port, ports.port] : [ports.first, ports.last]
}

const frontendOf = ({ protocol, host }: Entry | ReleasedBinding, port: number) =>
  `${protocol} ${host.text} ${port}`
const backendOf = ({ backend: { address, port } }: Entry | ReleasedBinding) =>
  address === undefined || port === 0 ? "" : `${address.text} ${port}`

const driverOn = ({ sql }: Storage) => {
  sql.exec("CREATE TABLE IF NOT EXISTS granted (frontend TEXT PRIMARY KEY, backend TEXT)")
  const holderOf = (entry: Entry, port: number) =>
    sql.exec("SELECT backend FROM granted WHERE frontend = ?", frontendOf(entry, port)).toArray()[0]
  const remove = (frontend: string, backend: string) =>
    sql.exec("DELETE FROM granted WHERE frontend = ? AND ? IN (backend, '')", frontend, backend)

  return Driver.of({
    mapPorts: ({ entries, ports }) =>
      Effect.suspend(() => {
        const isTaken = (entry: Entry, port: number) =>
          (holderOf(entry, port)?.["backend"] ?? backendOf(entry)) !== backendOf(entry)
        let [port, last] = rangeOf(ports)
        while (port <= last && entries.some((entry) => isTaken(entry, port))) port++
        if (port > last) return Effect.fail({ _tag: "PortAllocated", message: `port ${last} is allocated` })
        const added = entries.filter((entry) => holderOf(entry, port) === undefined)
        for (const entry of added)
          sql.exec("INSERT INTO granted VALUES (?, ?)", frontendOf(entry, port), backendOf(entry))
        // The scope closes with a failure if the answer was not delivered: undo what this call added.
        const undo = Effect.addFinalizer(({ _tag }) =>
          Effect.sync(() => {
            if (_tag === "Failure") for (const entry of added) remove(frontendOf(entry, port), "")
          })
        )
        const bindings = entries.map((entry) => {
          return { entry, port, discarded: undefined, allowForwarding: true, nat: undefined }
        })
        return Effect.as(undo, bindings)
      }),
    unmapPorts: ({ bindings }) =>
      Effect.sync(() => {
        for (const each of bindings) remove(frontendOf(each, each.port), backendOf(each))
      })
  })
}

export class Ports {
  readonly fetch: (request: Request) => Promise<Response>
  constructor({ storage }: { readonly storage: Storage }) {
    this.fetch = toWebHandler(driverOn(storage))
  }
}

const app = new Hono<{ Bindings: { readonly PORTS: Namespace } }>()
app.post("/:host/:method", ({ env, req }) => {
  const ports = env.PORTS.get(env.PORTS.idFromName(req.param("host")))
  return ports.fetch(new Request(new URL(`/${req.param("method")}`, req.url), req.raw))
})
export default app
