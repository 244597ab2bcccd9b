import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { portmapper, run } from "../support/command.ts"
import { temporaryFolder } from "../support/folders.ts"
import { areWrongUsage, asking, failed, served, withMemory } from "./asking.ts"

describe("a command that calls a running plugin", () => {
  it.live("refuses options that contradict each other, or do nothing without another", () =>
    areWrongUsage([
      ["ls --socket /x --url unix:///x", "ls: give --socket or --url, not both; see: portmapper ls --help"],
      [
        "ls --url ftp://x",
        'ls: --url "ftp://x": expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT; see: portmapper ls --help'
      ],
      ["ls --tls-ca x", "ls: the TLS files go with --url; see: portmapper ls --help"],
      [
        "ls --url http://x --tls-ca x",
        'ls: --url "http://x": the TLS files are for https:// or tcp://; see: portmapper ls --help'
      ],
      [
        "ls --url https://x --tls-cert x",
        "ls: --tls-cert and --tls-key go together; see: portmapper ls --help"
      ]
    ])
  )

  it.live("prints one JSON document with --json, also when it fails", () =>
    withMemory(
      Effect.gen(function* () {
        const { ask } = yield* served
        const json = (line: string) =>
          Effect.map(ask(`${line} --json`), ({ status, stdout }) => [status, JSON.parse(stdout)])
        const binding = {
          Proto: 6,
          BackendIP: "172.17.0.2",
          BackendPort: 80,
          FrontendIP: "0.0.0.0",
          FrontendPort: 8080
        }
        assert.deepStrictEqual(
          yield* json("map -p 0.0.0.0:8080:80 --to 172.17.0.2 --label portmapper.mode=nat --label a=b=c"),
          [
            0,
            {
              PortBindings: [{ ...binding, DiscardReq: false, AllowForwarding: true, NAT: null, Error: null }]
            }
          ]
        )
        const [status, listed] = yield* json("ls")
        assert.strictEqual(status, 0)
        assert.match(listed.Mappings[0].Since, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
        assert.deepStrictEqual(
          { Mappings: [{ ...listed.Mappings[0], Since: "" }] },
          {
            Mappings: [
              {
                Proto: 6,
                FrontendIP: "0.0.0.0",
                FrontendPort: 8080,
                BackendIP: "172.17.0.2",
                BackendPort: 80,
                Mode: "nat",
                Owner: "cli",
                State: "live",
                Since: "",
                Labels: { "portmapper.mode": "nat" },
                Connections: 0,
                BytesIn: null,
                BytesOut: null,
                Service: "",
                Refused: null,
                Slots: null,
                Open: null,
                Container: "",
                Reason: "",
                Host: "",
                HostAddress: ""
              }
            ]
          }
        )
        const [code, error] = yield* json("map -p 8080:81 --to 172.17.0.2")
        assert.strictEqual(code, 1)
        assert.match(
          error.Err,
          /^mapping 8080:81 failed: bind for 0\.0\.0\.0:8080\/tcp failed: port is already allocated/
        )
        assert.deepStrictEqual(yield* json("unmap -p 0.0.0.0:8080 -p 9"), [
          0,
          { Unmapped: [binding].map(({ ...named }) => named), NotMapped: ["9/tcp"] }
        ])
      })
    )
  )

  it.live("prints the cause of a failure on one line", () =>
    Effect.gen(function* () {
      const socket = Path.join(yield* temporaryFolder, "none.sock")
      const noSocket = `${socket}: no such socket; start the plugin with: portmapper serve`
      const ask = asking(socket)
      assert.deepStrictEqual(yield* ask("ls"), failed(`listing failed: ${noSocket}`))
      assert.deepStrictEqual(
        yield* ask("map -p 80:80 --to 10.0.0.1"),
        failed(`mapping 80:80 failed: ${noSocket}`)
      )
      assert.deepStrictEqual(yield* ask("unmap --all"), failed(`unmapping failed: ${noSocket}`))
      assert.deepStrictEqual(yield* portmapper(["ls", "--json", "--url", `unix://${socket}`]), {
        ...failed(`listing failed: ${noSocket}`),
        stdout: `${JSON.stringify({ Err: `listing failed: ${noSocket}` })}\n`
      })
    }).pipe(Effect.scoped)
  )

  testNeeding(
    "finds the plugin of a name at root's default, the watch's, or a managed plugin's place",
    ["mounts"],
    () =>
      Effect.gen(function* () {
        const places = [
          "/run/docker/plugins/p/p.sock",
          "/run/portmapper/watch.sock",
          "/run/docker/plugins/p.sock"
        ]
        const found = places.map(
          (path) => `mkdir -p ${Path.dirname(path)}; touch ${path}; "$@" ls --name p 2>&1 || true`
        )
        const script = `mount -t tmpfs none /run; "$@" ls --name p 2>&1 || true; ${found.join("; ")}`
        const node = [process.execPath, Path.join(import.meta.dirname, "../../adapters/cli/main.ts")]
        const { stdout } = yield* run(["unshare", "--mount", "sh", "-ec", script, "sh", ...node])
        assert.deepStrictEqual(
          stdout.split("\n").map((line) => /^portmapper: listing failed: ([^:]+): /.exec(line)?.[1]),
          [places[2], ...places, undefined]
        )
      })
  )
})
