/** A session on this process's own streams, with a driver that logs its calls. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect } from "effect"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { grant } from "./drivers.ts"

const driver = Driver.of({
  mapPorts: (group) => Effect.as(Effect.logInfo("mapping"), grant(group)),
  unmapPorts: ({ bindings }) => Effect.logInfo(`released ${bindings.length}`)
})

NodeRuntime.runMain(
  Effect.provideService(serve({ input: process.stdin, output: process.stdout }), Driver, driver)
)
