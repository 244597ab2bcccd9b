/** Serves a driver that grants every request on the given socket, as the Go reference's sample does. */
import { Effect } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { Driver } from "../../src/protocol/Driver.ts"

const driver = Driver.of({
  mapPorts: ({ entries, ports }) =>
    Effect.succeed(
      entries.map((entry) => {
        const port = ports._tag === "Exact" ? ports.port : 40_000
        return {
          entry,
          port,
          discarded: undefined,
          allowForwarding: true,
          nat: { address: entry.host, port }
        }
      })
    ),
  unmapPorts: () => Effect.void
})

Effect.runFork(
  Effect.scoped(
    Effect.gen(function* () {
      yield* serveUnix(process.argv[2] ?? "")
      console.log("ready")
      yield* Effect.never
    })
  ).pipe(Effect.provideService(Driver, driver))
)
