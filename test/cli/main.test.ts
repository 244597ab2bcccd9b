import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import * as Fs from "node:fs"
import * as Path from "node:path"
import type { Readable } from "node:stream"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { run } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"

const main = Path.join(import.meta.dirname, "../../adapters/cli/main.ts")

it.live("the executable refuses a Node that is too old, before it loads anything that Node can't read", () =>
  Effect.gen(function* () {
    const pretend = 'Object.defineProperty(process, "versions", { value: { node: "23.11.1" } })'
    const ran = yield* run([process.execPath, "--import", `data:text/javascript,${pretend}`, main, "ls"])
    assert.deepStrictEqual(ran, {
      status: 2,
      stdout: "",
      stderr: "portmapper: needs Node.js 24 or later, this is 23.11.1\n"
    })
  })
)

testNeeding("a signal to npm ends the processes that npm started", ["npm"], () =>
  Effect.runPromise(
    Effect.gen(function* () {
      // The input outlives its reader, and the process group is its own; none of its processes may be left.
      const input = Path.join(yield* temporaryFolder, "input")
      spawnSync("mkfifo", [input])
      const fd = Fs.openSync(input, "r+")
      const child = spawn("npm", ["run", "-s", "portmapper", "--", "rpc", "--memory"], {
        cwd: Path.join(import.meta.dirname, "../.."),
        stdio: [fd, "pipe", "inherit"],
        detached: true
      })
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          Fs.closeSync(fd)
          try {
            process.kill(-(child.pid ?? 0), "SIGKILL")
          } catch {
            // None of them is left.
          }
        })
      )
      Fs.writeSync(fd, '{"jsonrpc":"2.0","id":1,"method":"PortMapper.ListPorts","params":{}}\n')
      yield* Effect.promise(() => once(child.stdio[1] as Readable, "data"))
      child.kill("SIGTERM")
      // Its output ends when the last process that holds the pipe does.
      yield* Effect.promise(() => once(child, "close"))
    }).pipe(Effect.scoped)
  )
)
