import * as Net from "node:net"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { checkEngine } from "../../adapters/doctor/EngineCheck.ts"
import { parseEngine } from "../../adapters/engine/EngineAddress.ts"
import { fakeEngine, ping } from "../support/engine.ts"
import { temporaryFolder } from "../support/folders.ts"

/** The check of the Engine that these variables name, as if a user had set them unless told otherwise. */
const check = (variables: Readonly<Record<string, string>>, isNamed = true) =>
  Effect.map(checkEngine(parseEngine(undefined, variables), isNamed), ({ name, status, found, remedy }) => {
    assert.strictEqual(name, "Engine")
    return [status, found, remedy]
  })

describe("the check of the Engine", () => {
  it.live("names its version and where it is", () =>
    Effect.gen(function* () {
      const { path } = yield* fakeEngine({ ...ping("1.52"), "/info": { body: { ServerVersion: "29.0.0" } } })
      assert.deepStrictEqual(yield* check({ DOCKER_HOST: `unix://${path}` }), [
        "ok",
        `version 29.0.0 at ${path}`,
        undefined
      ])
    })
  )

  it.live("misses it only where a user named one", () =>
    Effect.gen(function* () {
      const path = Path.join(yield* temporaryFolder, "none.sock")
      assert.deepStrictEqual(yield* check({ DOCKER_HOST: `unix://${path}` }), [
        "warn",
        `the Engine at ${path}: no such socket (is Docker installed, and running?)`,
        "start it, or correct --engine or DOCKER_HOST; watch and --watch wait for it"
      ])
      assert.deepStrictEqual(yield* check({ DOCKER_HOST: `unix://${path}` }, false), [
        "ok",
        "none running here, and none is needed",
        undefined
      ])
    })
  )

  it.live("says what to do where it can't be asked, refuses, or says nothing", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* check({ DOCKER_HOST: "ssh://me@h" }), [
        "warn",
        'DOCKER_HOST "ssh://me@h": ssh:// is not supported; forward the socket by ssh -L and give its unix:// URL',
        "set --engine, or correct DOCKER_HOST"
      ])
      const [status, found, remedy] = yield* check({
        DOCKER_HOST: "tcp://127.0.0.1:9",
        DOCKER_CERT_PATH: "/nonexistent"
      })
      assert.deepStrictEqual([status, remedy], ["warn", "correct DOCKER_CERT_PATH"])
      assert.match(found ?? "", /^the Engine at https:\/\/127\.0\.0\.1:9: a file for TLS can't be read: /)
      const silent = Path.join(yield* temporaryFolder, "silent.sock")
      yield* Effect.acquireRelease(
        Effect.callback<Net.Server>((resume) => {
          const server = Net.createServer().listen(silent, () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => void server.close())
      )
      assert.deepStrictEqual(yield* check({ DOCKER_HOST: `unix://${silent}` }), [
        "warn",
        `the Engine at ${silent}: no answer to GET /_ping within 2 s`,
        "look at the Engine's log"
      ])
    })
  )
})
