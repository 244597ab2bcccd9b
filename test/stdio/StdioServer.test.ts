import { spawn } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { CurrentOwner, Driver } from "../../src/protocol/Driver.ts"
import { echo, grant } from "../support/drivers.ts"
import { mapRequest, unmapRequest } from "../support/requests.ts"
import { activated, activateLine, mapped, openSession, rpc, withDriver } from "../support/session.ts"

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
            detail: `"${name}" is not one of Plugin.Activate, PortMapper.MapPorts, PortMapper.UnmapPorts, PortMapper.ListPorts, PortMapper.MapGroups, PortMapper.FollowContainer, PortMapper.FollowInterface, PortMapper.Drain, PortMapper.Undrain`
          }
        },
        id
      })
      assert.deepStrictEqual(yield* session.rest, [
        activated,
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
