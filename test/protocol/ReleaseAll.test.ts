import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Driver, type ListedMapping } from "../../src/protocol/Driver.ts"
import { releaseAll } from "../../src/protocol/ReleaseAll.ts"

const listed = (publish: string): ListedMapping => ({
  ...{ protocol: 6, frontendIp: "192.0.2.1", frontendPort: 8080, backendIp: "172.17.0.2", backendPort: 80 },
  ...{ mode: "nat", owner: "session", state: "live", sinceMillis: 0 },
  ...{ connections: undefined, bytesIn: undefined, bytesOut: undefined },
  labels: new Map([
    ["portmapper.container", "web/0123456789ab"],
    ["portmapper.publish", publish]
  ])
})

describe("releasing all mappings", () => {
  it.effect("goes on where some can't be released, and names each of those", () =>
    Effect.gen(function* () {
      const asked: Array<string> = []
      const driver = Driver.of({
        mapPorts: () => Effect.die("nothing is mapped here"),
        unmapPorts: ({ labels }) => {
          const at = labels.get("portmapper.interface") ?? "an address"
          asked.push(at)
          return at === "wg0" ? Effect.void : Effect.fail({ _tag: "Failed", message: `${at} failed` })
        },
        listPorts: Effect.succeed(["8080:80", "wg0:8080:80", "eth0:8080:80"].map(listed))
      })
      const error = yield* Effect.flip(releaseAll(driver, "session"))
      assert.strictEqual(error.message, "an address failed; eth0 failed")
      assert.deepStrictEqual(asked, ["an address", "wg0", "eth0"])
    })
  )
})
