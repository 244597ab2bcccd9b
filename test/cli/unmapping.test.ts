import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { errorsText, releaseEach, unmapEach } from "../../adapters/cli/unmapping.ts"
import { socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { makeClient } from "../../adapters/docker/PluginClient.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Release, ReleasedBinding } from "../../src/protocol/PortBinding.ts"
import { socketFor } from "../support/socket.ts"

const bindings = (count: number, first = 1): ReadonlyArray<ReleasedBinding> =>
  Array.from({ length: count }, (_, index) => ({
    ...{ protocol: "tcp", host: addressUnsafe("127.0.0.1"), port: first + index },
    backend: { address: undefined, port: 0 }
  }))

/** A client of a driver that refuses each release with this port, and the sizes of its calls. */
const clientRefusing = Effect.fnUntraced(function* (port: number) {
  const calls: Array<number> = []
  const socket = yield* socketFor(
    Driver.of({
      mapPorts: () => Effect.succeed([]),
      unmapPorts: ({ bindings }: Release) => {
        calls.push(bindings.length)
        return bindings.some((each) => each.port === port)
          ? Effect.fail({ _tag: "No", message: `not ${port}` })
          : Effect.void
      }
    })
  )
  return { calls, client: yield* makeClient(socketAddress(socket), { owner: "cli" }) }
})

describe("many bindings", () => {
  it.live("are unmapped 500 to a call, those of one set of labels at a time", () =>
    Effect.gen(function* () {
      const { calls, client } = yield* clientRefusing(0)
      const progress: Array<number> = []
      const releases = [
        { bindings: bindings(501), labels: new Map() },
        { bindings: bindings(2, 1000), labels: new Map([["portmapper.interface", "eth0"]]) }
      ]
      const done = yield* releaseEach(client, releases, (more) => void progress.push(more))
      assert.deepStrictEqual(done, { count: 503, errors: [] })
      assert.deepStrictEqual(
        [calls, progress],
        [
          [500, 1, 2],
          [500, 1, 2]
        ]
      )
    })
  )

  it.live("are unmapped after a call that was refused, too", () =>
    Effect.gen(function* () {
      const { client } = yield* clientRefusing(500)
      const { count, errors } = yield* unmapEach(client, bindings(700))
      assert.strictEqual(count, 200)
      assert.deepStrictEqual(
        errors.map(({ message }) => message),
        ["not 500"]
      )
    })
  )

  it.live("are given up once no plugin is there", () =>
    Effect.gen(function* () {
      const client = yield* makeClient(socketAddress("/nowhere/p.sock"), { owner: "cli" })
      const { count, errors } = yield* unmapEach(client, bindings(1500))
      assert.deepStrictEqual([count, errors.length], [0, 1])
    })
  )
})

describe("several errors", () => {
  it("are the first, and how many more there are", () => {
    const errors = ["a", "b", "c"].map((message) => ({ message }))
    assert.strictEqual(errorsText(errors.slice(0, 1)), "a")
    assert.strictEqual(errorsText(errors), "a (and 2 more failures)")
  })
})
