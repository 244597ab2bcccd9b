import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { call, valueBody } from "../../src/protocol/Operations.ts"
import { echo } from "../support/drivers.ts"
import { mapRequest, unmapRequest } from "../support/requests.ts"
import { openSession, rpc, withDriver } from "../support/session.ts"

const outside = (method: "MapPorts" | "UnmapPorts", value: object, owner = "engine") =>
  Effect.provideService(Effect.scoped(call(`PortMapper.${method}`, valueBody(value))), CurrentOwner, owner)

const rules = Effect.map(MemoryFirewall, (firewall) => firewall.rules())

const rule = (port: number) => `Redirect 0.0.0.0:${port}/tcp -> 172.17.0.2:80`

describe("the end of a session", () => {
  const sessionThatMaps = Effect.gen(function* () {
    yield* outside("MapPorts", mapRequest(1000))
    yield* outside("MapPorts", mapRequest(1001), "session")
    yield* Effect.sleep(2)
    const session = yield* openSession
    yield* session.send(
      rpc(1, "MapPorts", mapRequest(1000)),
      rpc(2, "MapPorts", mapRequest(1001)),
      rpc(3, "MapPorts", mapRequest(2000)),
      rpc(4, "MapPorts", mapRequest(2001, { Owner: "cli" })),
      rpc(5, "MapPorts", mapRequest(2002, { Labels: { "portmapper.mode": "routed" } })),
      rpc(6, "MapPorts", mapRequest(2000)),
      rpc(7, "MapPorts", mapRequest(2003)),
      rpc(8, "UnmapPorts", unmapRequest(2003))
    )
    for (let id = 1; id <= 8; id++) assert.isDefined((yield* session.next).result, `${id}`)
    return session
  })

  it.live("releases what it made, under any owner, and nothing that was there before", () =>
    Effect.gen(function* () {
      const session = yield* sessionThatMaps
      const driver = yield* Driver
      assert.deepStrictEqual(yield* rules, [rule(1000), rule(1001), rule(2000), rule(2001)])
      yield* session.end
      assert.deepStrictEqual(yield* rules, [rule(1000), rule(1001)])
      assert.strictEqual((yield* driver.listPorts ?? Effect.succeed([])).length, 2)
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("does so when it is interrupted", () =>
    Effect.gen(function* () {
      const session = yield* sessionThatMaps
      yield* Fiber.interrupt(session.fiber)
      assert.deepStrictEqual(yield* rules, [rule(1000), rule(1001)])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("does so when its reader is gone", () =>
    Effect.gen(function* () {
      const session = yield* sessionThatMaps
      session.output.destroy()
      yield* Fiber.await(session.fiber)
      assert.deepStrictEqual(yield* rules, [rule(1000), rule(1001)])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("leaves alone what another client took over meanwhile", () =>
    Effect.gen(function* () {
      const session = yield* sessionThatMaps
      yield* outside("UnmapPorts", unmapRequest(2000))
      yield* outside("MapPorts", mapRequest(2000), "cli")
      yield* session.end
      assert.deepStrictEqual(yield* rules, [rule(1000), rule(1001), rule(2000)])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("releases everything it granted, with its labels, where the driver has no list", () =>
    Effect.suspend(() => {
      const releases: Array<unknown> = []
      return Effect.gen(function* () {
        const session = yield* openSession
        yield* session.send(
          rpc(1, "MapPorts", mapRequest(1)),
          rpc(2, "MapPorts", mapRequest(2, { Labels: { a: "b" } })),
          rpc(3, "MapPorts", mapRequest(3)),
          rpc(4, "UnmapPorts", { PortBindings: [{ Proto: 6, FrontendIP: "0.0.0.0", FrontendPort: 3 }] })
        )
        yield* session.end
        assert.deepStrictEqual(releases, [
          [[3], {}],
          [[1], {}],
          [[2], { a: "b" }]
        ])
      }).pipe(
        withDriver({
          ...echo,
          unmapPorts: ({ bindings, labels }) =>
            Effect.sync(
              () => void releases.push([bindings.map(({ port }) => port), Object.fromEntries(labels)])
            )
        })
      )
    })
  )

  it.live("reports that the input failed", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      yield* session.send(rpc(1, "MapPorts", mapRequest(1)))
      yield* session.next
      session.input.destroy(new Error("EIO"))
      assert.strictEqual((yield* Effect.flip(Fiber.join(session.fiber))).message, "reading failed: EIO")
    }).pipe(withDriver(echo))
  )
})
