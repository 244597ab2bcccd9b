import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { Driver } from "../../src/protocol/Driver.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { inShell, onTerminal } from "../support/command.ts"
import { listedMapping } from "../support/mappings.ts"
import { areWrongUsage, mapAs, served, withMemory } from "./asking.ts"

describe("ls", () => {
  it.live("refuses to watch as one JSON document", () =>
    areWrongUsage([
      [
        "ls --watch --json",
        "ls: --json prints one document, --watch has no end; give one of them; see: portmapper ls --help"
      ]
    ])
  )

  testNeeding("ends when its reader does", ["bash"], () =>
    withMemory(
      Effect.gen(function* () {
        const { socket } = yield* served
        for (let port = 1; port < 2000; port++) yield* mapAs("engine", `${port}`, ["tcp 0.0.0.0 10.0.0.1:80"])
        const { stdout, stderr } = yield* inShell(`portmapper ls --socket '${socket}' | head -n 1`)
        assert.match(stdout, /^FRONTEND.*\n$/)
        assert.strictEqual(stderr, "")
      })
    )
  )

  testNeeding("fits the width of a terminal, and prints every column without one", ["terminal"], () =>
    Effect.gen(function* () {
      const { ask, socket } = yield* served
      const narrow = yield* onTerminal(["ls", "--socket", socket], 50)
      assert.strictEqual(
        narrow.stdout,
        "FRONTEND        BACKEND      MODE  OWNER   STATE\n0.0.0.0:80/tcp  10.0.0.1:80  nat   engine  live\n"
      )
      const whole = yield* ask("ls")
      assert.match(
        whole.stdout,
        /^FRONTEND {8}BACKEND {6}MODE {2}OWNER {3}STATE {2}AGE {2}CONNS\n.* {2}\d+y {6}-\n$/
      )
    }).pipe(
      Effect.scoped,
      Effect.provideService(
        Driver,
        Driver.of({
          mapPorts: () => Effect.succeed([]),
          unmapPorts: () => Effect.void,
          listPorts: Effect.succeed([listedMapping({ frontendPort: 80, backendIp: "10.0.0.1" })])
        })
      )
    )
  )

  it.live("watches: prints the table whenever it changes, until it is interrupted", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const seen = yield* Deferred.make<void>()
        const watching = yield* Effect.forkChild(
          ask("ls --watch", {
            enough: (stdout) => {
              if (stdout !== "") Deferred.doneUnsafe(seen, Effect.void)
              return stdout.includes("8080/tcp")
            }
          })
        )
        yield* Deferred.await(seen)
        yield* mapAs("cli", "8080", ["tcp 0.0.0.0 10.0.0.1:80"])
        const { status, stdout, stderr } = yield* Fiber.join(watching)
        assert.deepStrictEqual([status, stderr], [0, ""])
        assert.match(
          stdout,
          /^FRONTEND {2}BACKEND {2}MODE {2}OWNER {2}STATE {2}AGE {2}CONNS\n\nFRONTEND .*\n0\.0\.0\.0:8080\/tcp .*\n$/
        )
      })
    )
  )

  testNeeding("draws on the alternate screen of a terminal, and restores the cursor", ["terminal"], () =>
    withMemory(
      Effect.gen(function* () {
        const { socket } = yield* served
        yield* mapAs("cli", "8080", ["tcp 0.0.0.0 10.0.0.1:80"])
        const { stdout } = yield* onTerminal(["ls", "--watch", "--socket", socket], 80, {
          enough: (drawn) => drawn.includes("8080/tcp")
        })
        assert.isTrue(stdout.startsWith("\u001b[?1049h\u001b[?25l\u001b[HFRONTEND"), stdout)
        assert.isTrue(stdout.endsWith("\u001b[?25h\u001b[?1049l"), stdout)
      })
    )
  )
})
