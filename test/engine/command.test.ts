/**
 * `portmapper watch` in its own process, with DOCKER_HOST: publishes by a label, serves, lists, releases at its end.
 */
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { temporaryFolder } from "../lab/Plugin.ts"
import { fakeEngine, ping } from "../support/engine.ts"

const program = "adapters/cli/main.ts"

const container = {
  Id: "c".repeat(64),
  Names: ["/web"],
  ImageID: "image",
  State: "running",
  Labels: { "portmapper.publish": "8080:80" },
  HostConfig: { NetworkMode: "default" },
  NetworkSettings: { Networks: { bridge: { NetworkID: "n", IPAddress: "172.31.0.2" } } }
}

describeLab("portmapper watch", [], () => {
  it.live(
    "publishes what the labels of containers ask for, and releases it at its end with the option for that",
    () =>
      Effect.gen(function* () {
        const { c1, client, host } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const engine = yield* fakeEngine({
          ...ping("1.41"),
          "/containers/json": { body: [container] },
          "/images/image/json": { body: { Config: {} } },
          "/networks": { body: [{ Id: "n", Name: "bridge" }] },
          "/info": { body: { ServerVersion: "20.10.24" } },
          "/events": { body: "\n", open: true }
        })
        const state = join(yield* temporaryFolder, "state")
        const socket = join(state, "watch.sock")
        const watch = yield* host.spawn(
          process.execPath,
          [program, "watch", "--state", state, "--release-on-exit"],
          { env: { DOCKER_HOST: `unix://${engine.path}` }, graceMillis: 20_000 }
        )
        yield* watch.waitForLine(`listening on ${socket}`)
        yield* watch.waitForLine("web: 1 port published")
        const ask = client.agent.tcp({ host: "10.99.0.1", port: 8080, close: "reset" })
        assert.strictEqual((yield* ask).answer?.who, "c1")
        const { stdout } = yield* host.exec(process.execPath, [program, "ls", "--json", "--socket", socket])
        const { Mappings } = JSON.parse(stdout) as {
          readonly Mappings: ReadonlyArray<Readonly<Record<string, unknown>>>
        }
        assert.deepStrictEqual(
          Mappings.map(
            ({ BackendIP, FrontendIP, FrontendPort, Owner, State }) =>
              `${FrontendIP}:${FrontendPort} -> ${BackendIP} ${Owner} ${State}`
          ),
          ["0.0.0.0:8080 -> 172.31.0.2 watch live", ":::8080 -> 172.31.0.2 watch live"]
        )
        yield* watch.stop
        assert.deepStrictEqual(watch.ended(), { code: 0, signal: null })
        assert.strictEqual((yield* ask).outcome, "refused")
      })
  )
})
