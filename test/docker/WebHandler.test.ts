import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer } from "effect"
import { maxBodyBytes } from "../../adapters/docker/Routes.ts"
import { toWebHandler } from "../../adapters/docker/WebHandler.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { echo, grant } from "../support/drivers.ts"
import { mapRequest } from "../support/requests.ts"
import { turns } from "../support/until.ts"

const requestOf = (verb: string, path: string, body?: string | ReadableStream, init: RequestInit = {}) =>
  new Request(`https://host.example${path}`, {
    method: verb,
    ...(body === undefined || verb === "GET" || verb === "HEAD" ? {} : { body, duplex: "half" }),
    ...init
  })

const ask = (handler: (request: Request) => Promise<Response>, request: Request) =>
  Effect.promise(async () => {
    const response = await handler(request)
    return {
      status: response.status,
      contentType: response.headers.get("content-type"),
      body: await response.text()
    }
  })

const mapBody = JSON.stringify(mapRequest(8080))

describe("the fetch handler", () => {
  it.live("builds its layer at the first request and releases it at the end", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const handler = toWebHandler(
        Layer.effectDiscard(
          Effect.acquireRelease(
            Effect.sync(() => events.push("built")),
            () => Effect.sync(() => events.push("released"))
          )
        ).pipe(Layer.provideMerge(PortMapper.layerMemory()), Layer.orDie)
      )
      assert.deepStrictEqual(events, [])
      const mapped = yield* ask(handler, requestOf("POST", "/PortMapper.MapPorts", mapBody))
      const listed = yield* ask(handler, requestOf("POST", "/PortMapper.ListPorts", "{}"))
      assert.deepStrictEqual([mapped.status, JSON.parse(listed.body).Mappings.length], [200, 1])
      yield* Effect.promise(handler.dispose)
      assert.deepStrictEqual(events, ["built", "released"])
      assert.deepStrictEqual(yield* ask(handler, requestOf("POST", "/Plugin.Activate", "")), {
        status: 503,
        contentType: "application/vnd.docker.plugins.v1.1+json",
        body: '{"Err":"the plugin is stopping; try again"}\n'
      })
    })
  )

  it.live("reports why its layer could not be built", () =>
    Effect.gen(function* () {
      const handler = toWebHandler(
        Layer.effect(Driver, Effect.fail({ _tag: "NoKernel", message: "there is no kernel" }))
      )
      const answer = yield* ask(handler, requestOf("POST", "/Plugin.Activate", ""))
      assert.deepStrictEqual([answer.status, answer.body], [500, '{"Err":"there is no kernel"}\n'])
    })
  )

  it.live("refuses a body over the limit without reading the rest, announced or not", () =>
    Effect.gen(function* () {
      const handler = toWebHandler(echo)
      let read = 0
      const endless = new ReadableStream({
        pull: (controller) => {
          read += 65536
          controller.enqueue(new Uint8Array(65536).fill(0x20))
        }
      })
      const streamed = yield* ask(handler, requestOf("POST", "/PortMapper.MapPorts", endless))
      assert.isBelow(read, 2 * maxBodyBytes)
      const announced = yield* ask(
        handler,
        requestOf("POST", "/PortMapper.MapPorts", "{}", {
          headers: { "Content-Length": `${maxBodyBytes + 1}` }
        })
      )
      for (const { status, body } of [streamed, announced]) {
        assert.deepStrictEqual(
          [status, body],
          [413, '{"Err":"the body is over the limit of 1048576 bytes"}\n']
        )
      }
      const full = "{}".padEnd(maxBodyBytes, " ")
      assert.strictEqual((yield* ask(handler, requestOf("POST", "/PortMapper.MapPorts", full))).status, 200)
    })
  )

  it.live("serves further pages, and reads owners from the header", () =>
    Effect.gen(function* () {
      const owners: Array<string> = []
      const handler = toWebHandler(
        { ...echo, unmapPorts: () => Effect.map(CurrentOwner, (owner) => void owners.push(owner)) },
        {
          owner: "web",
          pages: {
            "/healthz": Effect.succeed({ contentType: "text/plain", body: "ok" }),
            "/broken": Effect.fail(new Error("no metrics"))
          }
        }
      )
      const answers = [
        yield* ask(handler, requestOf("GET", "/healthz")),
        yield* ask(handler, requestOf("HEAD", "/healthz")),
        yield* ask(handler, requestOf("POST", "/healthz", "")),
        yield* ask(handler, requestOf("GET", "/broken")),
        yield* ask(handler, requestOf("POST", "/PortMapper.UnmapPorts", "{}")),
        yield* ask(
          handler,
          requestOf("POST", "/PortMapper.UnmapPorts", "{}", { headers: { "Portmapper-Owner": "cli" } })
        ),
        yield* ask(
          handler,
          requestOf("POST", "/PortMapper.UnmapPorts", "{}", { headers: { "Portmapper-Owner": "a b" } })
        )
      ]
      assert.deepStrictEqual(
        answers.map(({ status, body }) => `${status} ${body.trimEnd()}`),
        [
          "200 ok",
          "200 ",
          '405 {"Err":"POST /healthz: the method must be GET"}',
          '500 {"Err":"Error: no metrics"}',
          "200 {}",
          "200 {}",
          '400 {"Err":"the header Portmapper-Owner must be 1 to 128 printable ASCII characters, none of them a space"}'
        ]
      )
      assert.deepStrictEqual(owners, ["web", "cli"])
    })
  )
})

describe("a further POST of the fetch handler", () => {
  it.live("gets its handler's answer unchanged, and its scope ends with the delivery", () =>
    Effect.gen(function* () {
      const exits: Array<string> = []
      const handler = toWebHandler(echo, {
        handlers: {
          "/Tea.Brew": ({ header, body }) =>
            Effect.gen(function* () {
              yield* Effect.addFinalizer(({ _tag }) => Effect.sync(() => void exits.push(_tag)))
              if (body === "boil") return yield* Effect.die(new Error("no water"))
              return { status: 418, contentType: "text/tea", body: `${header("tea-kind")}: ${body}` }
            })
        }
      })
      const headers = { "Tea-Kind": "green" }
      assert.deepStrictEqual(
        [
          yield* ask(handler, requestOf("POST", "/Tea.Brew", "steep", { headers })),
          yield* ask(handler, requestOf("POST", "/Tea.Brew", "boil")),
          yield* ask(handler, requestOf("GET", "/Tea.Brew")),
          yield* ask(handler, requestOf("POST", "/Tea.Brew", "x".repeat(maxBodyBytes + 1)))
        ].map(({ status, contentType, body }) => [status, contentType, body.trimEnd()]),
        [
          [418, "text/tea", "green: steep"],
          [500, plugins, '{"Err":"internal error: Error: no water"}'],
          [405, plugins, '{"Err":"GET /Tea.Brew: the method must be POST"}'],
          [413, plugins, '{"Err":"the body is over the limit of 1048576 bytes"}']
        ]
      )
      assert.deepStrictEqual(exits, ["Success", "Failure"])
    })
  )
})

const plugins = "application/vnd.docker.plugins.v1.1+json"

describe("an answer of the fetch handler", () => {
  const watched = (wait: Effect.Effect<void>) => {
    const settled = Deferred.makeUnsafe<Exit.Exit<unknown, unknown>>()
    const begun = Deferred.makeUnsafe<void>()
    const driver = Driver.of({
      ...echo,
      mapPorts: (group) =>
        Effect.addFinalizer((exit) => Deferred.succeed(settled, exit)).pipe(
          Effect.andThen(Deferred.succeed(begun, undefined)),
          Effect.andThen(wait),
          Effect.as(grant(group))
        )
    })
    return { settled, begun, driver }
  }

  it.live("is delivered when the handler returns it", () =>
    Effect.gen(function* () {
      const { settled, driver } = watched(Effect.void)
      yield* ask(toWebHandler(driver), requestOf("POST", "/PortMapper.MapPorts", mapBody))
      assert.isTrue(Exit.isSuccess(yield* Deferred.await(settled)))
    })
  )

  it.live("is rolled back when its request is aborted", () =>
    Effect.gen(function* () {
      const { settled, begun, driver } = watched(Effect.never)
      const aborting = new AbortController()
      const request = requestOf("POST", "/PortMapper.MapPorts", mapBody, { signal: aborting.signal })
      const answered = toWebHandler(driver)(request).then(
        () => "answered",
        (error: unknown) => error
      )
      yield* Deferred.await(begun)
      aborting.abort("gone")
      assert.isTrue(Exit.hasInterrupts(yield* Deferred.await(settled)))
      assert.strictEqual(yield* Effect.promise(() => answered), "gone")
    })
  )

  it.live("is not computed for a request that was already aborted", () =>
    Effect.gen(function* () {
      let calls = 0
      const handler = toWebHandler({ ...echo, unmapPorts: () => Effect.sync(() => void calls++) })
      const request = requestOf("POST", "/PortMapper.UnmapPorts", "{}", { signal: AbortSignal.abort("gone") })
      const reason = yield* Effect.promise(() => handler(request).catch((error: unknown) => error))
      assert.deepStrictEqual([reason, calls], ["gone", 0])
    })
  )

  it.live("being computed is finished before the handler is disposed of", () =>
    Effect.gen(function* () {
      const proceed = yield* Deferred.make<void>()
      const { begun, driver } = watched(Deferred.await(proceed))
      const handler = toWebHandler(driver)
      const answered = handler(requestOf("POST", "/PortMapper.MapPorts", mapBody))
      yield* Deferred.await(begun)
      const disposed = handler.dispose()
      yield* turns()
      yield* Deferred.succeed(proceed, undefined)
      assert.strictEqual((yield* Effect.promise(() => answered)).status, 200)
      yield* Effect.promise(() => disposed)
    })
  )
})
