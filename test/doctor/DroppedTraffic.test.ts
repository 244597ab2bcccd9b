import { assert, it } from "@effect/vitest"
import { publishedOf } from "../../adapters/doctor/DroppedTraffic.ts"
import type { MappingState } from "../../src/protocol/Driver.ts"
import { listedMapping } from "../support/mappings.ts"

const interfaces = { towards: () => "docker0", outside: () => "eth0", addressOf: () => undefined }

it.each<readonly [state: MappingState, backend: string, traced: ReadonlyArray<string>]>([
  ["live", "172.17.0.2", ["172.17.0.2 redirected"]],
  ["drained", "172.17.0.2", ["172.17.0.2 redirected"]],
  ["live", "fd00::2", ["fd00::2 relayed"]],
  ["conflicted", "172.17.0.2", []],
  ["standby", "172.17.0.2", []],
  ["asleep", "100::1", []],
  ["drained", "100::1", []]
])("traces the packets of a mapping that is %s and leads to %s: %j", (state, backendIp, traced) => {
  assert.deepStrictEqual(
    publishedOf(listedMapping({ state, backendIp }), interfaces).map(
      ({ backend, traffic }) => `${backend.address.text} ${traffic}`
    ),
    traced
  )
})
