/** Uses every entry of the package that needs no Node of its own, then ends; it runs under Node and Bun. */
import assert from "node:assert/strict"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { PassThrough } from "node:stream"
import { Effect } from "effect"
import { Driver, PortMapper } from "portmapper"
import { makeClient, serveUnix, socketAddress } from "portmapper/docker"
import { toWebHandler } from "portmapper/fetch"
import { mapPorts } from "portmapper/memory"
import { StdioClient, StdioServer } from "portmapper/stdio"
import { explore, memoryTarget } from "portmapper/testing"

const requestOf = (port: number) => ({
  Reqs: [
    {
      Proto: 6,
      BackendIP: "172.17.0.2",
      BackendPort: 80,
      FrontendIP: "127.0.0.1",
      FrontendPort: port,
      FrontendPortEnd: port
    }
  ]
})

const folder = mkdtempSync(join(tmpdir(), "portmapper-portable-"))
const socket = join(folder, "p.sock")

const transports = Effect.gen(function* () {
  yield* serveUnix(socket)
  const client = yield* makeClient(socketAddress(socket), { owner: "portable" })
  const [requests, answers] = [new PassThrough(), new PassThrough()]
  yield* Effect.forkScoped(StdioServer.serve({ input: requests, output: answers }))
  const session = yield* StdioClient.make({ input: answers, output: requests })

  yield* mapPorts(requestOf(8080))
  yield* session.mapPorts(requestOf(8081))
  const ports = (yield* client.listPorts).map(({ frontendPort }) => frontendPort)
  assert.deepEqual(ports.sort(), [8080, 8081])
}).pipe(Effect.scoped, Effect.provide(PortMapper.layerMemory()))

await Effect.runPromise(transports)
assert.equal(existsSync(socket), false)
rmSync(folder, { recursive: true })

const handler = toWebHandler(Driver.of({ mapPorts: () => Effect.succeed([]), unmapPorts: () => Effect.void }))
const activate = new Request("http://plugin/Plugin.Activate", { method: "POST" })
assert.equal(await (await handler(activate)).text(), '{"Implements":["PortMapper"]}\n')
await handler.dispose()

const host = {
  ephemeral: { range: { first: 40_000, last: 40_007 }, reserved: [] },
  capabilities: {
    defaultMode: "nat",
    natUnavailable: undefined,
    marksAccepted: false,
    relayed: ["tcp", "udp"],
    ipv6: true
  }
} as const
assert.equal(explore({ seed: 1, runs: 20, host, target: () => memoryTarget(host) }), undefined)
console.log("every entry works")
