import { spawn } from "node:child_process"
import { PassThrough, Writable } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { maxLineBytes } from "../../adapters/stdio/LineReader.ts"
import { serve } from "../../adapters/stdio/StdioServer.ts"
import { MemoryFirewall } from "../../src/firewall/Firewall.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { call, valueBody } from "../../src/protocol/Operations.ts"
import { echo, grant } from "../support/drivers.ts"
import { mapRequest, unmapRequest } from "../support/requests.ts"
import { openSession, rpc } from "../support/session.ts"
import { turns } from "../support/until.ts"

const withDriver =
  (driver: Driver["Service"]) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, Driver, driver)

const granted = (port: number) => ({
  Proto: 6,
  BackendIP: "172.17.0.2",
  BackendPort: 80,
  FrontendIP: "0.0.0.0",
  FrontendPort: port,
  DiscardReq: false,
  AllowForwarding: true,
  NAT: { FromAddr: "0.0.0.0", FromPort: port },
  Error: null
})

const mapped = (id: unknown, port: number) => ({
  jsonrpc: "2.0",
  result: { PortBindings: [granted(port)], Err: "" },
  id
})

/** All answers of a session to these bytes. */
const answersTo = (bytes: string | Buffer) =>
  Effect.gen(function* () {
    const session = yield* openSession
    session.input.end(bytes)
    yield* Fiber.join(session.fiber)
    return yield* session.rest
  })

const answer = { jsonrpc: "2.0", result: { Implements: ["PortMapper"] }, id: 1 }
const activateLine = JSON.stringify(rpc(1, "Plugin.Activate"))

describe("a session's requests", () => {
  it.live("use the paths of HTTP, and short names for the mapper's too", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      yield* session.send(
        rpc(1, "Plugin.Activate"),
        rpc("a", "PortMapper.MapPorts", mapRequest(8080)),
        rpc(null, "MapPorts", [mapRequest(8081)]),
        rpc(2, "PortMapper.UnmapPorts", unmapRequest(8080)),
        rpc(3, "UnmapPorts", [unmapRequest(8080)]),
        rpc(4, "ListPorts"),
        rpc(5, "Activate"),
        rpc(6, "MapPorts2")
      )
      yield* session.end
      const unknown = (id: number, name: string) => ({
        jsonrpc: "2.0",
        error: {
          code: -32601,
          message: "Method not found",
          data: {
            detail: `"${name}" is not one of Plugin.Activate, PortMapper.MapPorts, PortMapper.UnmapPorts, PortMapper.ListPorts, PortMapper.MapGroups, PortMapper.FollowContainer`
          }
        },
        id
      })
      assert.deepStrictEqual(yield* session.rest, [
        answer,
        mapped("a", 8080),
        mapped(null, 8081),
        { jsonrpc: "2.0", result: {}, id: 2 },
        { jsonrpc: "2.0", result: {}, id: 3 },
        {
          jsonrpc: "2.0",
          error: {
            code: -32601,
            message: "PortMapper.ListPorts: this port mapper does not know the method"
          },
          id: 4
        },
        unknown(5, "Activate"),
        unknown(6, "MapPorts2")
      ])
    }).pipe(withDriver(echo))
  )

  it.live("with wrong params are refused with the reason", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      const missing = "params are missing: they must be the request, an object, or an array that holds it"
      const cases: ReadonlyArray<readonly [params: unknown, issues: ReadonlyArray<object>]> = [
        [undefined, [{ path: "", value: "", rule: missing }]],
        [[], [{ path: "", value: "", rule: missing }]],
        [
          [{}, 1],
          [{ path: "params", value: "[{},1]", rule: "one request, an object, or an array that holds it" }]
        ],
        [["x"], [{ path: "", value: '"x"', rule: "an object" }]],
        [{ Reqs: 1 }, [{ path: "Reqs", value: "1", rule: "an array" }]],
        [
          { Owner: 7 },
          [{ path: "Owner", value: "7", rule: "1 to 128 printable ASCII characters, none of them a space" }]
        ],
        [
          { Owner: "a b" },
          [
            {
              path: "Owner",
              value: '"a b"',
              rule: "1 to 128 printable ASCII characters, none of them a space"
            }
          ]
        ]
      ]
      yield* session.send(...cases.map(([params], id) => rpc(id, "MapPorts", params)))
      yield* session.end
      const answers = yield* session.rest
      assert.deepStrictEqual(
        answers.map((answer) => {
          const { error, id } = answer as { error: { code: number; data: unknown }; id: unknown }
          return { id, code: error.code, data: error.data }
        }),
        cases.map(([, issues], id) => ({ id, code: -32602, data: { issues } }))
      )
    }).pipe(withDriver(echo))
  )

  it.live("get the driver's errors with their tag, and its defects as internal errors", () =>
    Effect.gen(function* () {
      const session = yield* openSession
      yield* session.send(rpc(1, "MapPorts", mapRequest(80)), rpc(2, "UnmapPorts", unmapRequest(80)))
      yield* session.end
      assert.deepStrictEqual(yield* session.rest, [
        {
          jsonrpc: "2.0",
          error: { code: -32000, message: "the port is busy", data: { code: "Busy" } },
          id: 1
        },
        { jsonrpc: "2.0", error: { code: -32603, message: "internal error: Error: unforeseen" }, id: 2 }
      ])
    }).pipe(
      withDriver(
        Driver.of({
          mapPorts: () => Effect.fail({ _tag: "Busy", message: "the port is busy" }),
          unmapPorts: () => Effect.die(new Error("unforeseen"))
        })
      )
    )
  )

  it.live("name their owner in params, in any case; the default owner is the session", () =>
    Effect.suspend(() => {
      const owners: Array<string> = []
      return Effect.gen(function* () {
        const session = yield* openSession
        yield* session.send(
          rpc(1, "MapPorts", {}),
          rpc(2, "MapPorts", { Owner: "cli" }),
          rpc(3, "MapPorts", [{ owner: "cni:1/eth0" }]),
          rpc(4, "MapPorts", { Owner: "" }),
          rpc(5, "MapPorts", { Owner: null }),
          '{"jsonrpc":"2.0","id":6,"method":"MapPorts","params":{"Owner":"a","Owner":"b"}}'
        )
        yield* session.end
        assert.deepStrictEqual(owners, ["session", "cli", "cni:1/eth0", "session", "session", "b"])
      }).pipe(
        withDriver({
          ...echo,
          mapPorts: () =>
            Effect.map(CurrentOwner, (owner) => {
              owners.push(owner)
              return []
            })
        })
      )
    })
  )

  it.live("run one after the other, in order, notifications too", () =>
    Effect.suspend(() => {
      const log: Array<string> = []
      const slowAtFirst = {
        ...echo,
        mapPorts: Effect.fnUntraced(function* (group: Parameters<typeof grant>[0]) {
          const port = grant(group)[0]?.port
          log.push(`begin ${port}`)
          yield* Effect.sleep(port === 1 ? 30 : port === 2 ? 10 : 0)
          log.push(`end ${port}`)
          return grant(group)
        })
      }
      return Effect.gen(function* () {
        const session = yield* openSession
        yield* session.send(
          rpc(1, "MapPorts", mapRequest(1)),
          rpc(undefined, "MapPorts", mapRequest(2)),
          [rpc(3, "MapPorts", mapRequest(3)), rpc(undefined, "MapPorts", mapRequest(4))],
          rpc(5, "MapPorts", mapRequest(5))
        )
        yield* session.end
        assert.deepStrictEqual(
          log,
          [1, 2, 3, 4, 5].flatMap((port) => [`begin ${port}`, `end ${port}`])
        )
        assert.deepStrictEqual(yield* session.rest, [mapped(1, 1), [mapped(3, 3)], mapped(5, 5)])
      }).pipe(withDriver(slowAtFirst))
    })
  )
})

describe("a session's lines", () => {
  it.live("may end in CRLF, be blank, come byte by byte, or lack the end of the last one", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* answersTo(`${activateLine}\r\n\r\n \t\n${activateLine}`), [
        answer,
        answer
      ])
      const session = yield* openSession
      for (const byte of Buffer.from(`${activateLine}\r\n${activateLine}`)) {
        session.input.write(Buffer.from([byte]))
        yield* Effect.promise(() => new Promise(setImmediate))
      }
      yield* session.end
      assert.deepStrictEqual(yield* session.rest, [answer, answer])
    }).pipe(withDriver(echo))
  )

  it.live("over the limit are skipped and answered, and the session goes on", () =>
    Effect.gen(function* () {
      const refused = {
        jsonrpc: "2.0",
        error: {
          code: -32600,
          message: "Invalid Request",
          data: { detail: "the message is over the limit of 1048576 bytes" }
        },
        id: null
      }
      const padded = (bytes: number) => activateLine + " ".repeat(bytes - activateLine.length)
      assert.deepStrictEqual(
        yield* answersTo(
          [
            padded(maxLineBytes),
            padded(maxLineBytes + 1),
            activateLine,
            "x".repeat(5_000_000),
            activateLine
          ].join("\n")
        ),
        [answer, refused, answer, refused, answer]
      )
      assert.deepStrictEqual(yield* answersTo("x".repeat(maxLineBytes + 1)), [refused])
    }).pipe(withDriver(echo))
  )

  it.live("with invalid UTF-8 contain U+FFFD in its place", () =>
    Effect.suspend(() => {
      const seen: Array<string> = []
      return Effect.gen(function* () {
        const bytes = Buffer.from(
          '{"jsonrpc":"2.0","id":"!","method":"MapPorts","params":{"Labels":{"a":"!!"}}}'
        ).map((byte) => (byte === 0x21 ? 0xff : byte))
        const answers = yield* answersTo(Buffer.from(bytes))
        assert.deepStrictEqual(answers, [
          { jsonrpc: "2.0", result: { PortBindings: [], Err: "" }, id: "\ufffd" }
        ])
        assert.deepStrictEqual(seen, ["\ufffd\ufffd"])
      }).pipe(
        withDriver({
          ...echo,
          mapPorts: ({ labels }) =>
            Effect.sync(() => {
              seen.push(...labels.values())
              return []
            })
        })
      )
    })
  )

  it.live("with a byte order mark are refused as no JSON, as over HTTP", () =>
    Effect.gen(function* () {
      const [refused] = yield* answersTo(`\ufeff${activateLine}`)
      assert.deepStrictEqual(refused, {
        jsonrpc: "2.0",
        error: {
          code: -32700,
          message: "Parse error",
          data: { detail: "invalid character 'ï' looking for beginning of value" }
        },
        id: null
      })
    }).pipe(withDriver(echo))
  )
})

/** An output that blocks until the test releases it. */
const stuckOutput = () => {
  const taken: Array<string> = []
  let release: (() => void) | undefined
  let open = false
  const output = new Writable({
    decodeStrings: false,
    write: (chunk, _, done) => {
      const take = () => {
        taken.push(chunk)
        done()
      }
      if (open) take()
      else release = take
    }
  })
  return {
    output,
    taken,
    open: () => {
      open = true
      release?.()
    }
  }
}

describe("an answer", () => {
  const watched = () => {
    const events: Array<string> = []
    const driver = {
      ...echo,
      mapPorts: (group: Parameters<typeof grant>[0]) =>
        Effect.as(
          Effect.addFinalizer((exit) =>
            Effect.sync(() =>
              events.push(`${grant(group)[0]?.port} ${Exit.isSuccess(exit) ? "delivered" : "undone"}`)
            )
          ),
          grant(group)
        )
    }
    return { events, driver }
  }

  it.live("is delivered once the system has accepted its line, not before", () =>
    Effect.suspend(() => {
      const { events, driver } = watched()
      const { output, open, taken } = stuckOutput()
      const input = new PassThrough()
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(serve({ input, output }))
        input.end([1, 2, 3].map((port) => JSON.stringify(rpc(port, "MapPorts", mapRequest(port)))).join("\n"))
        yield* turns(100)
        assert.deepStrictEqual(events, [])
        open()
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(events, ["1 delivered", "2 delivered", "3 delivered"])
        assert.deepStrictEqual(
          taken.join("").split("\n"),
          [mapped(1, 1), mapped(2, 2), mapped(3, 3)].map((value) => JSON.stringify(value)).concat("")
        )
      }).pipe(withDriver(driver))
    })
  )

  it.live("to a notification is delivered at once", () =>
    Effect.suspend(() => {
      const { events, driver } = watched()
      return Effect.gen(function* () {
        const session = yield* openSession
        yield* session.send(rpc(undefined, "MapPorts", mapRequest(1)))
        yield* session.end
        assert.deepStrictEqual(events, ["1 delivered"])
      }).pipe(withDriver(driver))
    })
  )

  it.live("without a reader is rolled back, and ends the session", () =>
    Effect.suspend(() => {
      const { events, driver } = watched()
      const { output } = stuckOutput()
      const input = new PassThrough()
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(serve({ input, output }))
        input.write(
          [1, 2].map((port) => `${JSON.stringify(rpc(port, "MapPorts", mapRequest(port)))}\n`).join("")
        )
        yield* turns(100)
        output.destroy(new Error("write EPIPE"))
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.strictEqual(error.message, "writing answers failed: write EPIPE")
        assert.deepStrictEqual(events, ["2 undone", "1 undone"])
        assert.strictEqual(input.listenerCount("readable"), 0)
      }).pipe(withDriver(driver))
    })
  )

  it.live("being computed when the reader goes is abandoned", () =>
    Effect.suspend(() => {
      const { output } = stuckOutput()
      const input = new PassThrough()
      return Effect.gen(function* () {
        const begun = yield* Deferred.make<void>()
        const undone = yield* Deferred.make<boolean>()
        const fiber = yield* Effect.forkChild(
          serve({ input, output }).pipe(
            withDriver({
              ...echo,
              mapPorts: () =>
                Effect.addFinalizer((exit) => Deferred.succeed(undone, Exit.isFailure(exit))).pipe(
                  Effect.andThen(Deferred.succeed(begun, undefined)),
                  Effect.andThen(Effect.never)
                )
            })
          )
        )
        input.write(`${JSON.stringify(rpc(1, "MapPorts", mapRequest(1)))}\n`)
        yield* Deferred.await(begun)
        output.destroy()
        assert.isTrue(yield* Deferred.await(undone))
        assert.strictEqual(
          (yield* Effect.flip(Fiber.join(fiber))).message,
          "writing answers failed: the stream was closed"
        )
      })
    })
  )

  it.live("that is not read stops the reading of requests; nothing is lost once it is read", () =>
    Effect.suspend(() => {
      let calls = 0
      const { output, open, taken } = stuckOutput()
      const input = new PassThrough()
      const driver = { ...echo, activated: Effect.sync(() => void calls++) }
      return Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(serve({ input, output }))
        const total = 50_000
        let sent = 0
        const feed = () => {
          while (sent < total && input.write(`${JSON.stringify(rpc(sent, "Plugin.Activate"))}\n`)) sent++
          if (sent < total) sent++
          else input.end()
        }
        input.on("drain", feed)
        feed()
        let before = -1
        while (before !== calls) {
          before = calls
          yield* Effect.sleep(100)
        }
        assert.isBelow(calls, 8_000)
        open()
        yield* Fiber.join(fiber)
        const ids = taken
          .join("")
          .trimEnd()
          .split("\n")
          .map((line) => JSON.parse(line).id)
        assert.deepStrictEqual(
          ids,
          Array.from({ length: total }, (_, id) => id)
        )
        assert.isBelow(taken.length, 600)
      }).pipe(withDriver(driver))
    })
  )
})

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

describe("a session on a process's own streams", () => {
  const start = () =>
    spawn(process.execPath, [new URL("../support/stdio-child.ts", import.meta.url).pathname], {
      stdio: ["pipe", "pipe", "pipe"]
    })
  const collect = (child: ReturnType<typeof start>) => {
    const out = { stdout: "", stderr: "" }
    child.stdout.on("data", (chunk) => {
      out.stdout += chunk
    })
    child.stderr.on("data", (chunk) => {
      out.stderr += chunk
    })
    const closed = new Promise<number | string | null>((resolve) =>
      child.on("close", (code, signal) => resolve(signal ?? code))
    )
    return { out, closed }
  }
  const until = (holds: () => boolean) =>
    Effect.promise(async () => {
      while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5))
    })

  it.live("ends with its input; stdout carries the protocol and stderr the logs", () =>
    Effect.gen(function* () {
      const child = start()
      const { out, closed } = collect(child)
      child.stdin.end(`${JSON.stringify(rpc(1, "MapPorts", mapRequest(1)))}\n${activateLine}`)
      assert.strictEqual(yield* Effect.promise(() => closed), 0)
      assert.deepStrictEqual(
        out.stdout.split("\n").map((line) => line && JSON.parse(line).id),
        [1, 1, ""]
      )
      assert.match(out.stderr, /mapping\n.*released 1/)
    })
  )

  it.live("ends on SIGTERM, even with a blocked reader and an open input", () =>
    Effect.gen(function* () {
      const child = start()
      child.stdin.on("error", () => {})
      child.stdin.write(`${JSON.stringify(rpc(1, "MapPorts", mapRequest(1)))}\n`)
      yield* Effect.promise(() => new Promise((resolve) => child.stdout.once("data", resolve)))
      child.stdout.pause()
      child.stdin.write(`${activateLine}\n`.repeat(100_000))
      let stderr = ""
      child.stderr.on("data", (chunk) => {
        stderr += chunk
      })
      yield* Effect.sleep(300)
      child.kill("SIGTERM")
      yield* Effect.promise(() => new Promise((resolve) => child.on("exit", resolve)))
      assert.match(stderr, /released 1/)
      child.stdout.destroy()
    })
  )

  it.live("ends when its reader goes", () =>
    Effect.gen(function* () {
      const child = start()
      child.stdin.on("error", () => {})
      let stderr = ""
      child.stderr.on("data", (chunk) => {
        stderr += chunk
      })
      child.stdin.write(`${JSON.stringify(rpc(1, "MapPorts", mapRequest(1)))}\n`)
      yield* Effect.promise(() => new Promise((resolve) => child.stdout.once("data", resolve)))
      child.stdout.destroy()
      child.stdin.write(`${activateLine}\n`)
      yield* until(() => child.exitCode !== null)
      assert.match(stderr, /released 1/)
      assert.strictEqual(child.exitCode, 1)
    })
  )
})
