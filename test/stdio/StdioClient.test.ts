import { PassThrough } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import * as StdioClient from "../../adapters/stdio/StdioClient.ts"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { RequestError } from "../../src/protocol/RequestError.ts"
import { echo } from "../support/drivers.ts"
import { mapRequest, unmapRequest } from "../support/requests.ts"

const connected = Effect.gen(function* () {
  const requests = new PassThrough()
  const answers = new PassThrough()
  const server = yield* Effect.forkScoped(serve({ input: requests, output: answers }))
  const client = yield* StdioClient.make({ input: answers, output: requests })
  return { client, server, requests, answers }
})

/** A client of a server played by the test. */
const played = Effect.gen(function* () {
  const requests = new PassThrough()
  const answers = new PassThrough()
  const client = yield* StdioClient.make({ input: answers, output: requests })
  return { client, requests, answers }
})

describe("a client's calls", () => {
  it.live("return the messages as sent", () =>
    Effect.gen(function* () {
      const { client } = yield* connected
      assert.deepStrictEqual(yield* client.activate, { Implements: ["PortMapper"] })
      const { PortBindings } = yield* client.mapPorts(mapRequest(8080))
      assert.deepStrictEqual(
        PortBindings?.map(({ FrontendPort, BackendIP }) => [FrontendPort, BackendIP]),
        [[8080, "172.17.0.2"]]
      )
      const { Mappings } = yield* client.listPorts
      assert.deepStrictEqual(
        Mappings?.map(({ FrontendPort, Owner, State }) => [FrontendPort, Owner, State]),
        [[8080, "session", "live"]]
      )
      assert.deepStrictEqual(yield* client.unmapPorts(unmapRequest(8080)), {})
      yield* client.notify("MapPorts", mapRequest(8081, { Owner: "cli" }))
      assert.deepStrictEqual(
        (yield* client.listPorts).Mappings?.map(({ FrontendPort, Owner }) => [FrontendPort, Owner]),
        [[8081, "cli"]]
      )
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("fail with the server's error", () =>
    Effect.gen(function* () {
      const { client } = yield* connected
      const request = yield* Effect.flip(client.mapPorts({ Reqs: [{ Proto: 1 }] }))
      assert.instanceOf(request, RequestError)
      assert.strictEqual(request.issues[0]?.path, "Reqs[0].Proto")
      yield* client.mapPorts(mapRequest(8000))
      const [entry] = mapRequest(8000).Reqs
      const driver = yield* Effect.flip(client.mapPorts({ Reqs: [{ ...entry, BackendPort: 81 }] }))
      assert.strictEqual(driver._tag, "DriverFailed")
      assert.match(driver.message, /port is already allocated/)
      assert.deepInclude(driver, { code: "PortAllocated" })
      const unknown = yield* Effect.flip(client.call("Nope"))
      assert.deepInclude(unknown, { _tag: "RpcFailed", code: -32601, message: "Method not found" })
      const long = yield* Effect.flip(client.call("Nope", ["x".repeat(1024 * 1024)]))
      assert.strictEqual(long.message, "the message is over the limit of 1048576 bytes")
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("may run concurrently", () =>
    Effect.gen(function* () {
      const { client } = yield* connected
      const ports = yield* Effect.forEach(
        Array.from({ length: 2000 }, (_, index) => 10_000 + index),
        (port) =>
          Effect.map(
            client.mapPorts(mapRequest(port)),
            ({ PortBindings }) => PortBindings?.[0]?.FrontendPort
          ),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        ports,
        Array.from({ length: 2000 }, (_, index) => 10_000 + index)
      )
    }).pipe(Effect.provideService(Driver, echo))
  )

  it.live("match answers by id, in batches and in any order; an answer to no call is ignored", () =>
    Effect.gen(function* () {
      const { client, requests, answers } = yield* played
      const first = yield* Effect.forkChild(client.call("a"), { startImmediately: true })
      const second = yield* Effect.forkChild(client.call("b", { x: 1 }), { startImmediately: true })
      const given = yield* Effect.forkChild(client.call("c"), { startImmediately: true })
      yield* Effect.promise(() => new Promise((resolve) => requests.once("readable", resolve)))
      assert.strictEqual(
        String(requests.read()),
        [
          '{"jsonrpc":"2.0","method":"a","id":1}',
          '{"jsonrpc":"2.0","method":"b","params":{"x":1},"id":2}',
          '{"jsonrpc":"2.0","method":"c","id":3}',
          ""
        ].join("\n")
      )
      yield* Fiber.interrupt(given)
      answers.write('no JSON\n\n7\n{"id":99,"result":0}\n{"id":"1","result":0}\n')
      answers.write('[{"jsonrpc":"2.0","id":2,"result":"two"},{"jsonrpc":"2.0","id":3,"result":3}]\n')
      answers.write('{"jsonrpc":"2.0","id":1,"result":"one"}\n')
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], ["one", "two"])
    })
  )

  it.live("fail when the answer is invalid", () =>
    Effect.gen(function* () {
      const { client, answers } = yield* played
      const fiber = yield* Effect.forkChild(client.mapPorts({}), { startImmediately: true })
      answers.write('{"jsonrpc":"2.0","id":1,"result":{"PortBindings":7}}\n')
      assert.strictEqual(
        (yield* Effect.flip(Fiber.join(fiber))).message,
        "the server's answer is none: bad request: PortBindings = 7: must be an array"
      )
    })
  )
})

describe("the end of a session", () => {
  it.live("fails the calls in flight and all later ones", () =>
    Effect.gen(function* () {
      for (const [end, reason] of [
        [({ answers }) => answers.end(), "the server's output ended"],
        [({ answers }) => answers.destroy(new Error("EIO")), "reading failed: EIO"],
        [({ requests }) => requests.destroy(new Error("EPIPE")), "EPIPE"]
      ] as ReadonlyArray<readonly [(streams: Record<"answers" | "requests", PassThrough>) => void, string]>) {
        const { client, ...streams } = yield* played
        const fiber = yield* Effect.forkChild(client.activate, { startImmediately: true })
        yield* Effect.sleep(1)
        end(streams)
        assert.strictEqual((yield* Effect.flip(Fiber.join(fiber))).message, `the session is over: ${reason}`)
        assert.strictEqual((yield* Effect.flip(client.activate))._tag, "Disconnected")
      }
    })
  )

  it.live("comes with the end of the client's scope, too", () =>
    Effect.gen(function* () {
      const made = yield* Deferred.make<StdioClient.StdioClient>()
      yield* Effect.scoped(Effect.flatMap(played, ({ client }) => Deferred.succeed(made, client)))
      const client = yield* Deferred.await(made)
      assert.strictEqual(
        (yield* Effect.flip(client.activate)).message,
        "the session is over: the client was closed"
      )
    })
  )
})
