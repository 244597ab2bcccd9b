/** The plugin and the record of another version, see docs/VERSIONS.md: `vectors/0.1.0` has one of release 0.1.0. */
import { copyFileSync, mkdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { migrations } from "../../adapters/node/MappingSchema.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"

const vector = join(import.meta.dirname, "../vectors/0.1.0/mappings.db")

/** A state directory as 0.1.0 left it: the folder for `Plugin.start`, and the record in it. */
const stateOf010 = Effect.map(Plugin.temporaryFolder, (folder) => {
  const path = join(folder, "state/mappings.db")
  mkdirSync(join(folder, "state"), { mode: 0o700 })
  copyFileSync(vector, path)
  return { folder, path }
})

const listed = (plugin: Plugin.Plugin) =>
  Effect.map(plugin.call("ListPorts", {}), ({ body }) =>
    (JSON.parse(body).Mappings as ReadonlyArray<Record<string, unknown>>)
      .map(({ FrontendIP, FrontendPort, BackendIP, BackendPort, Mode, Owner, State, Since, Labels }) =>
        [
          `${FrontendIP}:${FrontendPort} ${BackendIP}:${BackendPort} ${Mode} ${Owner} ${State} ${Since}`,
          ...Object.entries(Labels as object).map(([key, value]) => `${key}=${value}`)
        ].join(" ")
      )
      .sort()
  )

describeLab("the record of another version", [], () => {
  it.live("is restored where 0.1.0 wrote it, all kinds of mappings", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const { folder } = yield* stateOf010
      const plugin = yield* Plugin.start(host, { folder })
      assert.deepStrictEqual(yield* listed(plugin), [
        "0.0.0.0:0 172.31.0.3:82 routed engine live 2026-11-29T15:51:19.728Z portmapper.mode=routed",
        "0.0.0.0:5353 172.31.0.2:53 proxy watch live 2026-11-29T15:51:19.632Z portmapper.mode=proxy portmapper.udp-idle=30s",
        "0.0.0.0:8080 172.31.0.2:80 nat engine live 2026-11-29T15:51:19.426Z",
        "0.0.0.0:8443 172.31.0.2:443 nat cli live 2026-11-29T15:51:19.564Z portmapper.allow=10.0.0.0/8,192.0.2.7",
        "127.0.0.1:8081 172.31.0.2:81 engine engine unconfirmed 2026-11-29T15:51:19.707Z portmapper.mode=engine",
        ":::8080 fd66::2:80 nat engine live 2026-11-29T15:51:19.539Z"
      ])
      assert.strictEqual((yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })).outcome, "answered")
    })
  )

  it.live("is refused where a later version wrote it, and the record and the kernel stay as they are", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const { folder, path } = yield* stateOf010
      const later = yield* Plugin.start(host, { folder })
      yield* later.process.kill("SIGTERM")
      yield* later.process.wait()
      const database = new DatabaseSync(path)
      database.exec(
        `ALTER TABLE mapping ADD COLUMN weight INTEGER; PRAGMA user_version = ${migrations.length + 1}`
      )
      database.close()
      const [record, table] = [readFileSync(path), yield* contents(host)]
      const { code, stderr } = yield* host.exec(process.execPath, [
        ...["adapters/cli/main.ts", "serve", "--socket", join(folder, "p.sock")],
        ...["--state", join(folder, "state")]
      ])
      assert.deepStrictEqual(
        [code, stderr.split("\n").at(-2)],
        [
          1,
          `portmapper: opening the store failed: ${path}: it is of version ${migrations.length + 1}, and this portmapper reads up to ${migrations.length}: start the one that wrote it, or remove all that it published by portmapper reset`
        ]
      )
      assert.isTrue(readFileSync(path).equals(record))
      assert.deepStrictEqual(yield* contents(host), table)
      assert.strictEqual((yield* client.agent.tcp({ host: "10.99.0.1", port: 8080 })).outcome, "answered")
    })
  )
})
