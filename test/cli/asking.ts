/** A driver on a socket of its own, and the commands that ask it, each with its whole output. */
import * as Path from "node:path"
import { assert } from "@effect/vitest"
import { Effect, Layer, type Scope } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { InterfaceAddresses } from "../../src/ports/InterfaceAddresses.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import * as Memory from "../engine/MemoryEngine.ts"
import { portmapper, type Ran, type RunOptions } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"
import { group } from "../support/groups.ts"

/** Serves a driver on its own socket; returns the socket and what runs a command against it. */
export const served = Effect.gen(function* () {
  const socket = Path.join(yield* temporaryFolder, "p.sock")
  yield* serveUnix(socket)
  return { socket, ask: asking(socket) }
})

/** `map -p 8080:80` as typed in a shell; no word may contain a space. */
export const asking =
  (socket: string) =>
  (line: string, options?: RunOptions): Effect.Effect<Ran> =>
    portmapper([...line.split(" "), "--socket", socket], options)

export const withMemory = <A, E>(effect: Effect.Effect<A, E, Driver | Scope.Scope>) =>
  Effect.provide(Effect.scoped(effect), PortMapper.layerMemory())

/** What a watch needs besides the driver. */
export const watchServices = Layer.mergeAll(
  Memory.layer(),
  InterfaceAddresses.layerMemory,
  WatchRecord.layerMemory
)

export const done = (...lines: ReadonlyArray<string>): Ran => ({
  status: 0,
  stdout: lines.map((line) => `${line}\n`).join(""),
  stderr: ""
})
export const failed = (why: string): Ran => ({ status: 1, stdout: "", stderr: `portmapper: ${why}\n` })

/** Each command line is wrong usage, for the reason beside it. */
export const areWrongUsage = (rows: ReadonlyArray<readonly [line: string, why: string]>) =>
  Effect.forEach(
    rows,
    ([line, why]) =>
      Effect.map(portmapper(line.split(" ")), (ran) =>
        assert.deepStrictEqual(ran, { status: 2, stdout: "", stderr: `portmapper: ${why}\n` }, line)
      ),
    { concurrency: 4, discard: true }
  )

export const mapped = Driver.use((driver) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (listed) =>
    listed.map(
      ({ frontendIp, frontendPort, backendIp, backendPort, owner }) =>
        `${frontendIp} ${frontendPort} ${backendIp} ${backendPort} ${owner}`
    )
  )
)

export const mapAs = (
  owner: string,
  port: string,
  entries: ReadonlyArray<string>,
  labels?: Record<string, string>
) =>
  Driver.use((driver) => Effect.scoped(driver.mapPorts(group(port, entries, labels)))).pipe(
    Effect.provideService(CurrentOwner, owner)
  )
