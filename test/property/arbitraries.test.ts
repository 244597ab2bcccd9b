/**
 * The generators of the harness: each draws valid values of its kind, shrinks to the simplest, and covers every
 * service.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Option, Result, Schema } from "effect"
import fc from "fast-check"
import { Driver } from "../../src/protocol/Driver.ts"
import { decodeText, decodeValue } from "../../src/protocol/GoSchema.ts"
import * as Messages from "../../src/protocol/Messages.ts"
import { call, kindOf, type Method, textBody, valueBody } from "../../src/protocol/Operations.ts"
import {
  activateResponse,
  type Call,
  drainRequest,
  errorResponse,
  explore,
  type Fate,
  followContainerRequest,
  followInterfaceRequest,
  hostileText,
  listPortsRequest,
  listPortsResponse,
  type ModelHost,
  mapGroupsRequest,
  mapGroupsResponse,
  mapRequest,
  mapResponse,
  memoryTarget,
  nearlyMapRequest,
  nearlyUnmapRequest,
  unmapRequest,
  unmapResponse
} from "../../src/testing/index.ts"
import { driver } from "../fuzz/decoders.ts"
import { hosts } from "./hosts.ts"
import { seed } from "./seed.ts"

/** The verdict of a driver that grants everything: only the request itself can be at fault. */
const toldOf = (method: Method, body: Parameters<typeof call>[1]): string => {
  const exit = Effect.runSyncExit(Effect.provideService(Effect.scoped(call(method, body)), Driver, driver))
  if (Exit.isSuccess(exit)) return "answered"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  return error === undefined ? `defect: ${Cause.pretty(exit.cause)}` : kindOf(error)
}

const nat = hosts["nat"] as ModelHost

const options = { seed, numRuns: 200 }

describe("generated requests", () => {
  it("are valid", () => {
    for (const [method, arbitrary, expected] of [
      ["PortMapper.MapPorts", mapRequest, "answered"],
      ["PortMapper.UnmapPorts", unmapRequest, "answered"],
      ["PortMapper.MapGroups", mapGroupsRequest, "answered"],
      ["PortMapper.ListPorts", listPortsRequest, "answered"],
      ["PortMapper.FollowContainer", followContainerRequest, "notFound"],
      ["PortMapper.FollowInterface", followInterfaceRequest, "notFound"],
      ["PortMapper.Drain", drainRequest, "notFound"],
      ["PortMapper.Undrain", drainRequest, "notFound"]
    ] as const)
      fc.assert(
        fc.property(arbitrary as fc.Arbitrary<unknown>, (value) => {
          assert.strictEqual(toldOf(method, valueBody(value)), expected, JSON.stringify(value))
          assert.strictEqual(toldOf(method, textBody(JSON.stringify(value))), expected)
        }),
        options
      )
  })

  it("are refused as bad requests where they have one fault", () => {
    const target = memoryTarget(nat)
    for (const [method, arbitrary] of [
      ["PortMapper.MapPorts", nearlyMapRequest],
      ["PortMapper.UnmapPorts", nearlyUnmapRequest]
    ] as const)
      fc.assert(
        fc.property(arbitrary, (value) => {
          const { outcome } = target.call({ method, value, owner: "engine" }, undefined)
          assert.strictEqual(outcome._tag === "Refused" ? outcome.fault : outcome._tag, "request")
        }),
        options
      )
    assert.deepStrictEqual(target.world.held().listed, [])
  })

  it("do no harm, however hostile", () => {
    fc.assert(
      fc.property(hostileText, (text) => {
        for (const method of ["PortMapper.MapPorts", "PortMapper.UnmapPorts"] as const)
          assert.match(toldOf(method, textBody(text)), /^(answered|request)$/, JSON.stringify(text))
      }),
      options
    )
  })

  it("shrink to the simplest that still fails", () => {
    const { counterexample } = fc.check(
      fc.property(mapRequest, ({ Reqs }) => !(Reqs ?? []).some(({ Proto }) => Proto === 17)),
      { seed: 1, numRuns: 300 }
    )
    const { Reqs, Labels } = counterexample?.[0] ?? {}
    assert.deepStrictEqual(
      [Labels, Reqs?.map(({ FrontendIP, BackendIP }) => `${FrontendIP} -> ${BackendIP}`)],
      [null, ["0.0.0.0 -> 172.17.0.2"]]
    )
  })
})

describe("generated messages", () => {
  const messages: ReadonlyArray<
    readonly [name: string, schema: Schema.Codec<unknown, unknown>, arbitrary: fc.Arbitrary<unknown>]
  > = [
    ["MapPortsRequest", Messages.MapPortsRequest, mapRequest],
    ["MapGroupsRequest", Messages.MapGroupsRequest, mapGroupsRequest],
    ["UnmapPortsRequest", Messages.UnmapPortsRequest, unmapRequest],
    ["ListPortsRequest", Messages.ListPortsRequest, listPortsRequest],
    ["FollowContainerRequest", Messages.FollowContainerRequest, followContainerRequest],
    ["FollowInterfaceRequest", Messages.FollowInterfaceRequest, followInterfaceRequest],
    ["DrainRequest", Messages.DrainRequest, drainRequest],
    ["MapPortsResponse", Messages.MapPortsResponse, mapResponse],
    ["MapGroupsResponse", Messages.MapGroupsResponse, mapGroupsResponse],
    ["UnmapPortsResponse", Messages.UnmapPortsResponse, unmapResponse],
    ["ListPortsResponse", Messages.ListPortsResponse, listPortsResponse],
    ["ActivateResponse", Messages.ActivateResponse, activateResponse],
    ["ErrorResponse", Messages.ErrorResponse, errorResponse]
  ]
  for (const [name, schema, arbitrary] of messages)
    it(`are read as a value and as text, and written unchanged: ${name}`, () =>
      fc.assert(
        fc.property(arbitrary, (value) => {
          for (const read of [decodeValue(schema)(value), decodeText(schema)(JSON.stringify(value))])
            assert.deepStrictEqual(
              Result.map(
                Result.mapError(read, ({ message }) => message),
                Schema.encodeSync(schema)
              ),
              Result.succeed(value)
            )
        }),
        options
      ))
})

describe("generated scripts", () => {
  it("fail, interrupt and kill at steps of every service", () => {
    const struck = new Set<string>()
    const target = () => {
      const right = memoryTarget(nat)
      return {
        ...right,
        call: (asked: Call, fate: Fate) => {
          const ended = right.call(asked, fate)
          if (ended.at !== undefined) struck.add(`${fate?.how} in ${ended.at.split(".")[0]}`)
          return ended
        }
      }
    }
    for (let from = 1; struck.size < 15 && from <= 40; from++)
      assert.isUndefined(explore({ seed: from, runs: 10, host: nat, target }))
    const services = ["Conntrack", "Firewall", "HostSockets", "MappingStore", "Relay"]
    assert.deepStrictEqual(
      [...struck].sort(),
      ["crash", "fail", "interrupt"].flatMap((how) => services.map((service) => `${how} in ${service}`))
    )
  }, 120_000)
})
