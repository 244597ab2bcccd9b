import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { makeClient } from "../../adapters/docker/PluginClient.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { temporaryFolder } from "../support/folders.ts"
import { group } from "../support/groups.ts"
import { until } from "../support/until.ts"

const web = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"])
const api = group("9090", ["tcp 0.0.0.0 172.17.0.3:80"])

/** The owners of all mappings, without the names that the server gives to sessions. */
const owners = Effect.gen(function* () {
  const { listPorts = Effect.succeed([]) } = yield* Driver
  return (yield* listPorts).map(
    ({ frontendPort, owner }) => `${frontendPort} ${owner.replace(/:[0-9a-f]{12}$/, ":ID")}`
  )
})

/** A client whose connections close with the scope. */
const clientOf = Effect.fnUntraced(function* (path: string, owner: string) {
  const scope = yield* Scope.make()
  const client = yield* Scope.provide(makeClient(socketAddress(path), { owner }), scope)
  return { ...client, disconnect: Scope.close(scope, Exit.void) }
})

const serving = Effect.fnUntraced(function* () {
  const path = Path.join(yield* temporaryFolder, "p.sock")
  const scope = yield* Scope.make()
  yield* Scope.provide(serveUnix(path), scope)
  return { path, stop: Scope.close(scope, Exit.void) }
})

const isNow = (...lines: ReadonlyArray<string>) =>
  until(owners, (found) => JSON.stringify(found) === JSON.stringify(lines))

describe("what a session maps over a connection", () => {
  it.live("ends with the connection, and no other session's mappings", () =>
    Effect.gen(function* () {
      const { path } = yield* serving()
      const one = yield* clientOf(path, "session")
      const other = yield* clientOf(path, "session")
      yield* one.mapPorts(web)
      yield* other.mapPorts(api)
      assert.deepStrictEqual(yield* owners, ["8080 session:ID", "9090 session:ID"])
      yield* one.disconnect
      yield* isNow("9090 session:ID")
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("stays while another connection of the same name is open", () =>
    Effect.gen(function* () {
      const { path } = yield* serving()
      const one = yield* clientOf(path, "session:a")
      const other = yield* clientOf(path, "session:a")
      yield* one.mapPorts(web)
      yield* other.mapPorts(api)
      yield* one.disconnect
      const third = yield* clientOf(path, "session:b")
      yield* third.listPorts
      assert.deepStrictEqual(yield* owners, ["8080 session:a", "9090 session:a"])
      yield* other.disconnect
      yield* isNow()
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("stays where another owner or a later session has been answered with it", () =>
    Effect.gen(function* () {
      const { path } = yield* serving()
      const [one, later, engine] = [
        yield* clientOf(path, "session"),
        yield* clientOf(path, "session:later"),
        yield* clientOf(path, "engine")
      ]
      yield* one.mapPorts(web)
      yield* one.mapPorts(api)
      yield* later.mapPorts(api)
      yield* engine.mapPorts(web)
      yield* one.mapPorts(group("7070", ["tcp 0.0.0.0 172.17.0.4:80"]))
      yield* one.disconnect
      yield* isNow("8080 engine", "9090 session:later")
      yield* later.disconnect
      yield* isNow("8080 engine")
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )

  it.live("is released when the server has stopped", () =>
    Effect.gen(function* () {
      const { path, stop } = yield* serving()
      const session = yield* clientOf(path, "session")
      const engine = yield* clientOf(path, "engine")
      yield* session.mapPorts(web)
      yield* engine.mapPorts(api)
      yield* stop
      assert.deepStrictEqual(yield* owners, ["9090 engine"])
    }).pipe(Effect.provide(PortMapper.layerMemory()))
  )
})
