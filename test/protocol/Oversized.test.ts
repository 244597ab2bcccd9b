import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { maxBodyBytes } from "../../adapters/docker/Routes.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { call, textBody } from "../../src/protocol/Operations.ts"
import { oversized } from "../support/oversized.ts"

const follows = Effect.map(Driver, (driver) => ({ ...driver, followContainer: () => Effect.succeed([]) }))

const verdictOn = (method: (typeof oversized)[number]["method"], body: string) =>
  Effect.scoped(call(`PortMapper.${method}`, textBody(body))).pipe(
    Effect.match({ onSuccess: () => "granted", onFailure: ({ message }) => message }),
    Effect.provideServiceEffect(Driver, follows)
  )

describe("a request that asks for too much", () => {
  it.effect.each(oversized)("$title: $verdict", ({ body, method, verdict }) =>
    Effect.gen(function* () {
      assert.isAtMost(Buffer.byteLength(body), maxBodyBytes)
      assert.strictEqual((yield* verdictOn(method, body)).slice(0, verdict.length), verdict)
      // It leaves no work that the next caller waits for, and the list shows only our own labels of a mapping.
      const listed = JSON.stringify(yield* Effect.scoped(call("PortMapper.ListPorts", textBody("{}"))))
      assert.isBelow(listed.length, 20_000)
    }).pipe(Effect.provide(PortMapper.layerMemory({})))
  )
})
