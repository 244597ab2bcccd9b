/**
 * Your own driver over three transports: `node own-driver.ts SOCKET` serves the plugin protocol on a Unix socket,
 * and JSON-RPC on stdin and stdout until its input ends. `handler` is the same driver as a `fetch` handler.
 */
import { Effect } from "effect"
import { Driver, type Entry, type PortRequest, type ReleasedBinding } from "portmapper"
import { serveUnix } from "portmapper/docker"
import { toWebHandler } from "portmapper/fetch"
import { StdioServer } from "portmapper/stdio"

const rangeOf = (ports: PortRequest): readonly [first: number, last: number] => {
  if (ports._tag === "Ephemeral") return [40_000, 40_999]
  return ports._tag === "Exact" ? [ports.port, ports.port] : [ports.first, ports.last]
}
const frontendOf = ({ protocol, host }: Entry | ReleasedBinding, port: number) =>
  `${protocol} ${host.text} ${port}`
const backendOf = ({ backend: { address, port } }: Entry | ReleasedBinding) =>
  address === undefined || port === 0 ? undefined : `${address.text} ${port}`

/** Grants each port to the first backend that requests it, and has the Engine redirect it. */
const makeDriver = () => {
  const granted = new Map<string, string | undefined>()
  return Driver.of({
    mapPorts: ({ entries, ports }) =>
      Effect.suspend(() => {
        const isTaken = (entry: Entry, port: number) => {
          const frontend = frontendOf(entry, port)
          return granted.has(frontend) && granted.get(frontend) !== backendOf(entry)
        }
        let [port, last] = rangeOf(ports)
        while (port <= last && entries.some((entry) => isTaken(entry, port))) port++
        if (port > last) return Effect.fail({ _tag: "PortAllocated", message: `port ${last} is allocated` })
        const added = entries.filter((entry) => !granted.has(frontendOf(entry, port)))
        for (const entry of added) granted.set(frontendOf(entry, port), backendOf(entry))
        // The scope closes with a failure if the answer was not delivered: undo what this call added.
        const undo = Effect.addFinalizer(({ _tag }) =>
          Effect.sync(() => {
            if (_tag === "Failure") for (const entry of added) granted.delete(frontendOf(entry, port))
          })
        )
        const bindings = entries.map((entry) => {
          const nat = { address: entry.host, port }
          return { entry, port, discarded: undefined, allowForwarding: true, nat }
        })
        return Effect.as(undo, bindings)
      }),
    unmapPorts: ({ bindings }) =>
      Effect.sync(() => {
        for (const binding of bindings) {
          const frontend = frontendOf(binding, binding.port)
          const backend = backendOf(binding)
          if (backend === undefined || granted.get(frontend) === backend) granted.delete(frontend)
        }
      })
  })
}

const driver = makeDriver()

export const handler = toWebHandler(driver)

const [socket] = process.argv.slice(2)
if (import.meta.main && socket !== undefined) {
  const session = StdioServer.serve({ input: process.stdin, output: process.stdout })
  const program = Effect.scoped(Effect.andThen(serveUnix(socket), session))
  await Effect.runPromise(Effect.provideService(program, Driver, driver))
}
