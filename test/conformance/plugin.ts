/** Our plugin as a black box: in process, or served over a Unix socket. */
import * as Path from "node:path"
import { Effect, Layer } from "effect"
import { httpWire } from "../../adapters/docker/HttpWire.ts"
import { socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import type { Capabilities } from "../../src/mapper/plan/Plan.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { call, kindOf, Method, textBody } from "../../src/protocol/Operations.ts"
import type { Wire, WireAnswer } from "../../src/testing/index.ts"
import { temporaryFolder } from "../support/folders.ts"

const contentType = "application/vnd.docker.plugins.v1.1+json"

/** The answer of a plugin with this driver, without HTTP. */
export const wireOf = (driver: Driver["Service"]): Wire => ({
  send: ({ path, body }) => {
    const method = Method.literals.find((each) => `/${each}` === path)
    if (method === undefined) return Effect.succeed(answer(404, { Err: `${path}: no such path` }))
    return Effect.scoped(call(method, textBody(body))).pipe(
      Effect.map((value) => answer(200, value)),
      Effect.catch((error) =>
        Effect.succeed(
          answer({ request: 400, notFound: 404, driver: 500 }[kindOf(error)], { Err: error.message })
        )
      ),
      Effect.provideService(Driver, driver)
    )
  }
})

export const answer = (status: number, value: unknown): WireAnswer => ({
  status,
  headers: { "content-type": contentType },
  body: `${JSON.stringify(value)}\n`
})

/** Served over a Unix socket until the scope closes. */
export const servedWire = Effect.fnUntraced(function* (capabilities: Partial<Capabilities> = {}) {
  const folder = yield* temporaryFolder
  const socketPath = Path.join(folder, "plugin.sock")
  const services = yield* Layer.build(PortMapper.layerMemory(capabilities))
  yield* Effect.provide(serveUnix(socketPath), services)
  return { socketPath, wire: httpWire(socketAddress(socketPath)) }
})
