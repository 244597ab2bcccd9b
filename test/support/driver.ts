/** A driver that grants what it is asked, and a folder that is gone after the test. */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"

export const granting = Driver.of({
  mapPorts: (group) =>
    Effect.succeed(
      group.entries.map((entry) => ({
        entry,
        port: group.ports._tag === "Exact" ? group.ports.port : 40000,
        discarded: undefined,
        allowForwarding: true,
        nat: undefined
      }))
    ),
  unmapPorts: () => Effect.void
})

export const temporaryFolder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
)
