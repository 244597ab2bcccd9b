/** A driver that grants every request without a redirection, and a folder that is removed after the test. */
import { Effect } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"
import { grant } from "./drivers.ts"

export { temporaryFolder } from "./folders.ts"

export const granting = Driver.of({
  mapPorts: (group) => Effect.succeed(grant(group).map((binding) => ({ ...binding, nat: undefined }))),
  unmapPorts: () => Effect.void
})
