/** The managed plugin on a real Engine, as far as docs/INSTALL.md says that it goes. */
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { docker } from "../lab/Containers.ts"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import { temporaryFolder } from "../lab/Plugin.ts"
import { labRequest } from "../support/requests.ts"
import { makePackage } from "./packaging.ts"

describeLab("the managed plugin", ["dockerd", "mmdebstrap", "strip", "npm", "curl"], () => {
  it.live("is started by the Engine, serves, and begins an epoch with each start of the Engine", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const [folder, state] = [yield* temporaryFolder, yield* temporaryFolder]

      /** By the socket in the folder that the Engine gives it, where plugins' sockets are. */
      const map = (dockerd: Dockerd.Dockerd, port: number) =>
        Effect.suspend(() => {
          const [id] = readdirSync(dockerd.pluginFolder)
          const socket = `/run/docker/plugins/${id}/portmapper.sock`
          const url = "http://plugin/PortMapper.MapPorts"
          return dockerd.check("curl", [
            "-fsS",
            "--unix-socket",
            socket,
            "-d",
            JSON.stringify(labRequest(port)),
            url
          ])
        }).pipe(Effect.retry({ times: 100, schedule: Schedule.spaced("100 millis") }))

      yield* Effect.scoped(
        Effect.gen(function* () {
          const dockerd = yield* Dockerd.start(host, { folder })
          yield* docker(dockerd, ["plugin", "create", "portmapper", makePackage("plugin")])
          yield* docker(dockerd, [
            ...["plugin", "set", "portmapper", `record.source=${state}`],
            `engine.source=${join(folder, "dockerd.pid")}`
          ])
          yield* docker(dockerd, ["plugin", "enable", "portmapper"])
          const seen = JSON.parse((yield* dockerd.api("GET", "/plugins")).body)[0]
          assert.deepInclude(seen.Config.Interface, { Socket: "portmapper.sock" })
          assert.isTrue(seen.Enabled)
          assert.include(yield* map(dockerd, 8080), '"FrontendPort":8080')
          assert.strictEqual((yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })).outcome, "answered")
          yield* docker(dockerd, ["plugin", "disable", "portmapper"])
          // What the kernel publishes outlives it.
          assert.include(Object.keys(yield* contents(host)), "any4")
          assert.strictEqual((yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })).outcome, "answered")
          yield* docker(dockerd, ["plugin", "enable", "portmapper"])
          assert.include(yield* map(dockerd, 8081), '"FrontendPort":8081')
        })
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          const dockerd = yield* Dockerd.start(host, { folder })
          assert.include(yield* map(dockerd, 8082), '"FrontendPort":8082')
          yield* docker(dockerd, ["plugin", "disable", "portmapper"])
        })
      )
      const record = new DatabaseSync(join(state, "mappings.db"))
      const epochs = record.prepare("SELECT port, epoch FROM mapping ORDER BY port").all()
      record.close()
      assert.deepStrictEqual(
        epochs.map(({ port, epoch }) => `${port} ${epoch}`),
        ["8080 1", "8081 1", "8082 2"]
      )
    })
  )
})
