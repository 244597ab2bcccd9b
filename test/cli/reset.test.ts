import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { lockState } from "../../adapters/node/StateLock.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { onTerminal, portmapper, resetIn } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"

/** A host's folders with what plugins leave behind, and files of other programs. */
const host = Effect.gen(function* () {
  const at = yield* temporaryFolder
  const [state, plugins, specs] = ["portmapper", "plugins", "specs"].map((name) => Path.join(at, name)) as [
    string,
    string,
    string
  ]
  for (const folder of [state, plugins, specs]) Fs.mkdirSync(folder, { mode: 0o700 })
  for (const name of [
    "mappings.db",
    "mappings.db-wal",
    "engine",
    "watch.json",
    "slept.json",
    "lock",
    "spare",
    ".spare.123",
    "handover.sock",
    ".123.handover.sock"
  ])
    Fs.writeFileSync(Path.join(state, name), "")
  for (const name of ["portmapper.spec", "other.spec"]) Fs.writeFileSync(Path.join(specs, name), "tcp://h:1")
  const socket = Path.join(plugins, "portmapper.sock")
  yield* Effect.callback<void>((resume) => {
    const abandoned = Net.createServer()
    abandoned.listen(Path.join(plugins, "x"), () => {
      Fs.renameSync(Path.join(plugins, "x"), socket)
      abandoned.close(() => resume(Effect.void))
    })
  })
  const args = ["reset", "--state", state, "--socket", socket, "--spec-dir", specs]
  const left = () =>
    [state, plugins, specs].flatMap((path) => (Fs.existsSync(path) ? Fs.readdirSync(path) : []))
  return { state, plugins, specs, socket, args, left }
})

describe("reset", () => {
  testNeeding("removes what plugins left behind, and nothing else", ["network"], () =>
    Effect.runPromise(
      Effect.gen(function* () {
        const { args, state, specs, socket, left } = yield* host
        assert.deepStrictEqual(yield* resetIn([...args, "--yes"]), {
          status: 0,
          stdout: [
            ...[
              ".123.handover.sock",
              ".spare.123",
              "engine",
              "handover.sock",
              "lock",
              "mappings.db",
              "mappings.db-wal",
              "slept.json",
              "spare",
              "watch.json"
            ].map((name) => Path.join(state, name)),
            socket,
            Path.join(specs, "portmapper.spec")
          ]
            .map((path) => `removed ${path}\n`)
            .join(""),
          stderr: ""
        })
        assert.deepStrictEqual(left(), ["other.spec"])
        assert.isFalse(Fs.existsSync(state))
        assert.deepStrictEqual(yield* resetIn([...args, "--yes"]), {
          status: 0,
          stdout: "nothing to remove\n",
          stderr: ""
        })
      }).pipe(Effect.scoped)
    )
  )

  it.live("refuses while a plugin serves, and names its process", () =>
    Effect.gen(function* () {
      const { args, socket, state, left } = yield* host
      Fs.rmSync(socket)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* serveUnix(socket)
          const { status, stdout, stderr } = yield* portmapper(args)
          assert.deepStrictEqual([status, stdout], [1, ""])
          assert.match(
            stderr,
            /^portmapper: reset refused: process \d+ \(.+\) is serving \/.*portmapper\.sock; stop it first\n$/
          )
          assert.include(stderr, `process ${process.pid} (`)
          // Named by its command line, not by the kernel's name of its first thread.
          assert.notInclude(stderr, `(${Fs.readFileSync("/proc/self/comm", "utf8").trim()})`)
        })
      )
      yield* lockState(state)
      const before = left()
      const { status, stderr } = yield* portmapper(args)
      assert.strictEqual(status, 1)
      assert.match(
        stderr,
        /^portmapper: reset refused: process \d+ \(.+\) is using \/.*\/portmapper; stop it first\n$/
      )
      assert.include(stderr, `process ${process.pid} (`)
      assert.deepStrictEqual(left(), before)
    }).pipe(Effect.scoped, Effect.provide(PortMapper.layerMemory()))
  )

  testNeeding(
    "says what it would remove, and removes nothing without a yes",
    ["terminal", "iptables", "nft"],
    () =>
      Effect.gen(function* () {
        const { args, left, socket } = yield* host
        const before = left()
        const { status, stdout } = yield* onTerminal(args, 80, { input: "n\n" })
        assert.strictEqual(status, 1, stdout)
        assert.include(stdout, `  ${socket}\n`)
        assert.include(
          stdout,
          "  nftables table inet portmapper\n  our rule in DOCKER-USER\nRemove it? [y/N] "
        )
        assert.isTrue(stdout.endsWith("portmapper: reset refused: nothing was removed\n"), stdout)
        const interrupted = yield* onTerminal(args, 80, { enough: (shown) => shown.endsWith("[y/N] ") })
        assert.strictEqual(interrupted.status, 130)
        assert.deepStrictEqual(left(), before)
      }).pipe(Effect.scoped)
  )
})
