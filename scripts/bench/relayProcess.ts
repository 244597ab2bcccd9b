/**
 * The product's relay as a process of its own, for the benchmarks: `relayProcess.ts ROUTES`, where ROUTES is JSON.
 * Prints `ready` once all routes are open; for each line on its input, prints its memory after a garbage
 * collection.
 */
import { readFileSync } from "node:fs"
import { createInterface } from "node:readline"
import { Effect, Layer } from "effect"
import * as LinuxSockets from "../../adapters/linux/sockets/LinuxSockets.ts"
import * as LinuxRelay from "../../adapters/relay/LinuxRelay.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Relay } from "../../src/relay/Relay.ts"

/** `count` routes on ports from `port` on, 4,000 on each address, whose third octet rises. */
export interface Routes {
  readonly protocol: "tcp" | "udp"
  readonly host: string
  readonly port: number
  readonly count: number
  readonly backendPort: number
}

const portsPerAddress = 4000

const [groups = "[]"] = process.argv.slice(2)

const open = Effect.fnUntraced(function* ({ protocol, host, port, count, backendPort }: Routes) {
  const sockets = yield* HostSockets
  const relay = yield* Relay
  const backend = { address: addressUnsafe("127.0.0.1"), port: backendPort }
  for (let index = 0; index < count; index++) {
    const [a, b, c = "0", d] = host.split(".")
    const address = addressUnsafe([a, b, Number(c) + Math.floor(index / portsPerAddress), d].join("."))
    const own = port + (index % portsPerAddress)
    const socket = yield* sockets.open(protocol, address, own)
    yield* relay.open({
      protocol,
      host: address,
      port: own,
      socket,
      backend,
      admits: "everything",
      allow: undefined,
      proxyProtocol: undefined,
      udpIdle: undefined
    })
  }
})

const print = (words: string): void => void process.stdout.write(`${words}\n`)

const residentKilobytes = (): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))?.[1])

await Effect.gen(function* () {
  yield* Effect.forEach(JSON.parse(groups) as ReadonlyArray<Routes>, open)
  print("ready")
  const context = yield* Effect.context<HostSockets | Relay>()
  const lines = createInterface(process.stdin)
  lines.on("line", async (line) => {
    const more = JSON.parse(line) as ReadonlyArray<Routes>
    const begun = performance.now()
    await Effect.runPromiseWith(context)(Effect.forEach(more, open))
    const took = performance.now() - begun
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 1500))
    globalThis.gc?.()
    print(JSON.stringify({ took, rss: residentKilobytes() }))
  })
  return yield* Effect.never
}).pipe(Effect.provide(LinuxRelay.layer().pipe(Layer.provideMerge(LinuxSockets.layer()))), Effect.runPromise)
