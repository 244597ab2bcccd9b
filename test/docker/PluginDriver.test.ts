import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { layerDriver, PluginConnection } from "../../adapters/docker/PluginDriver.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { mapGroupsTogether } from "../../src/protocol/Operations.ts"
import type { Group } from "../../src/protocol/PortBinding.ts"
import { temporaryFolder } from "../support/folders.ts"
import { group } from "../support/groups.ts"

const web = ["tcp 0.0.0.0 172.17.0.2:80", "tcp :: [fd00::2]:80"]

describe("a running plugin as a driver", () => {
  it.live("maps several groups together, all of them or none", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      yield* serveUnix(path)
      const forwarding = yield* Layer.build(layerDriver(path))
      const together = (...groups: ReadonlyArray<Group>) =>
        Effect.scoped(mapGroupsTogether(groups)).pipe(
          Effect.provideContext(forwarding),
          Effect.provideService(CurrentOwner, "session:a")
        )
      const taken = group("8080", ["tcp 0.0.0.0 172.17.0.9:80"])
      const driver = yield* Driver
      yield* Effect.scoped(driver.mapPorts(taken))
      const refused = yield* Effect.flip(together(group("5432", web), group("8080", web)))
      assert.match(
        `${refused._tag}: ${refused.message}`,
        /^CallRefused: Groups\[1\]: bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated/
      )
      const ports = Effect.map(driver.listPorts ?? Effect.succeed([]), (listed) =>
        listed.map(({ frontendPort, owner }) => `${frontendPort} ${owner}`)
      )
      assert.deepStrictEqual(yield* ports, ["8080 engine"])
      assert.lengthOf(yield* together(group("5432", web), group("5433", web)), 2)
      assert.deepStrictEqual([...new Set(yield* ports)], ["8080 engine", "5432 session:a", "5433 session:a"])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("is lost once the plugin closes the connection on which something was mapped", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "p.sock")
      const lostAfter = <A, E>(call: (driver: Driver["Service"]) => Effect.Effect<A, E, Scope.Scope>) =>
        Effect.gen(function* () {
          const serving = yield* Scope.make()
          yield* Scope.provide(serveUnix(path), serving)
          const built = yield* Layer.build(Layer.fresh(layerDriver(path)))
          yield* call(Context.get(built, Driver))
          const lost = yield* Effect.forkChild(Effect.flip(Context.get(built, PluginConnection).lost))
          yield* Scope.close(serving, Exit.void)
          return lost
        })
      const idle = yield* lostAfter((driver) => driver.listPorts ?? Effect.void)
      const mapped = yield* lostAfter((driver) => driver.mapPorts(group("5432", web)))
      assert.strictEqual(
        (yield* Fiber.join(mapped)).message,
        `the plugin at ${path} closed the connection, and with it this session`
      )
      assert.isUndefined(idle.pollUnsafe())
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )
})
