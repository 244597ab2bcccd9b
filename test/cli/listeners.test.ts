import { spawn } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab, testNeeding } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import { makeCertificates } from "../support/certificates.ts"
import { temporaryFolder } from "../support/folders.ts"
import { request } from "../support/http.ts"

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))
const serve = [path("../../adapters/cli/main.ts"), "serve"]

/** The last line of a command that ends at once, and its exit status. */
const refusal = (args: ReadonlyArray<string>) =>
  Effect.callback<string>((resume) => {
    const child = spawn(process.execPath, [...serve, ...args], { stdio: ["ignore", "ignore", "pipe"] })
    let errors = ""
    child.stderr.on("data", (chunk) => {
      errors += chunk
    })
    child.once("close", (code) =>
      resume(Effect.succeed(`${code} ${errors.trim().split("\n").at(-1)?.trim()}`))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("portmapper serve with wrong options", () => {
  it.live("exits 2 and says what to do instead, before it touches the host", () =>
    Effect.gen(function* () {
      const beyond = "it is reached from beyond this host, so clients must show certificates; missing:"
      const instead = "or listen on 127.0.0.1 instead"
      const rows: ReadonlyArray<readonly [string, string]> = [
        [
          "--tcp 0.0.0.0:7000",
          `0.0.0.0:7000: ${beyond} --tls-cert, --tls-key, --tls-ca; give them as well, ${instead}`
        ],
        ["--tcp [::]:0 --tls-cert a --tls-key b", `[::]:0: ${beyond} --tls-ca; give it as well, ${instead}`],
        [
          "--tcp 127.0.0.1:0 --tls-ca a",
          "127.0.0.1:0: TLS needs a certificate, its key and the clients' CA; missing: --tls-cert, --tls-key; give them as well"
        ],
        [
          "--tls-cert a --tls-key b",
          "--tls-cert, --tls-key: of no use without --tcp or --page HOST:PORT; give it as well"
        ],
        [
          "--page 0.0.0.0:9080",
          `0.0.0.0:9080: ${beyond} --tls-cert, --tls-key, --tls-ca; give them as well, ${instead}`
        ],
        [
          "--socket /x/p.sock --page unix:/x/../x/p.sock",
          "--page unix:/x/../x/p.sock: the plugin listens there, by --socket; give the page another"
        ],
        [
          "--tcp 127.0.0.1:7000 --page 127.0.0.1:7000",
          "--page 127.0.0.1:7000: the plugin listens there, by --tcp; give the page another"
        ],
        ["--page-host a.example", "--page-host: of no use without --page; give it as well"],
        [
          "--page unix:/x --tls-cert a --tls-key b",
          "--tls-cert, --tls-key: of no use without --tcp or --page HOST:PORT; give it as well"
        ],
        ["--spec-dir /x", "--spec-dir: of no use without --tcp HOST:PORT; give it as well"],
        ["--tcp 127.0.0.1:0 --spec-ca x", "--spec-ca: of no use without --tls-cert; give it as well"],
        [
          "--tcp 127.0.0.1:0 --tls-cert a --tls-key b --tls-ca c --spec-cert d",
          "--spec-cert and --spec-key belong together: give both, or neither"
        ]
      ]
      const answers = yield* Effect.forEach(rows, ([args]) => refusal(args.split(" ")), { concurrency: 4 })
      assert.deepStrictEqual(
        answers,
        rows.map(([, message]) => `2 portmapper: ${message}`)
      )
      assert.strictEqual(
        yield* refusal(["--tcp", "::1:80"]),
        '2 portmapper: serve: --tcp "::1:80": expected HOST:PORT, such as 127.0.0.1:7000 or, for IPv6, [::1]:7000; see: portmapper serve --help'
      )
    })
  )
})

describe("portmapper serve with a folder that can't be made", () => {
  it.live("exits 1 and names it, whatever the folder is for", () =>
    Effect.gen(function* () {
      const state = Path.join(yield* temporaryFolder, "state")
      const missing = "ENOENT: no such file or directory, mkdir '/proc/nope'"
      const rows: ReadonlyArray<readonly [string, string]> = [
        [`--state ${state} --socket /proc/nope/a/b`, `/proc/nope/a/b: making the folder failed: ${missing}`],
        [
          `--state ${state}1 --socket ${state}1/p --page unix:/proc/nope/b`,
          `/proc/nope/b: making the folder failed: ${missing}`
        ],
        ["--state /proc/nope/c", `preparing the state directory failed: /proc/nope/c: ${missing}`],
        [
          `--state ${state}2 --tcp 127.0.0.1:0 --spec-dir /proc/nope/d`,
          "/proc/nope/d: making the folder failed: no such file or directory"
        ]
      ]
      const answers = yield* Effect.forEach(
        rows,
        ([args]) => refusal(["--mode", "proxy", ...args.split(" ")]),
        { concurrency: 4 }
      )
      assert.deepStrictEqual(
        answers,
        rows.map(([, message]) => `1 portmapper: ${message}`)
      )
    })
  )
})

describeLab("portmapper serve in a lab", [], () => {
  testNeeding("serves only the sockets that systemd passes, unless options name more", ["python"], () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* temporaryFolder
      const [passed, asked] = [Path.join(folder, "passed.sock"), Path.join(folder, "asked.sock")]
      const sockets = JSON.stringify([passed, ["127.0.0.1", 7001]])
      const state = ["--state", Path.join(yield* temporaryFolder, "state")]
      const activate = [path("../support/activate.py"), sockets, "1", process.execPath, ...serve, ...state]
      const plugin = yield* host.spawn(
        "python3",
        [...activate, "--socket", asked, "--tcp", "127.0.0.1:7002", "--spec-dir", folder],
        {
          env: { LISTEN_FDNAMES: "plugin:port" }
        }
      )
      yield* plugin.waitForLine(/^listening on .*7002/)
      assert.deepStrictEqual(
        plugin.lines("stderr").filter((line) => line.startsWith("listening")),
        [
          "listening on systemd's socket plugin",
          "listening on 127.0.0.1:7001 without TLS, for every user of this host, systemd's socket port",
          `listening on ${asked}`,
          "listening on 127.0.0.1:7002 without TLS, for every user of this host"
        ]
      )
      for (const socket of [passed, asked])
        assert.strictEqual((yield* Effect.promise(() => request(socket, "/Plugin.Activate"))).status, 200)
      yield* plugin.kill("SIGTERM")
      yield* plugin.wait()
      assert.deepStrictEqual(Fs.readdirSync(folder).sort(), ["passed.sock"])
    })
  )

  it.live("exits 1 and names the file or the port that it can't use", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const folder = yield* temporaryFolder
      const { ca, client, server } = makeCertificates(folder)
      const spec = Path.join(folder, "taken.spec")
      Fs.writeFileSync(spec, "unix:///elsewhere\n")
      const tls = (key: string) => ["--tls-cert", server.cert, "--tls-key", key, "--tls-ca", ca.cert]
      const rows: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
        [tls("/none.key"), "/none.key: no such file or directory"],
        [tls(client.key), `${client.key}: the key does not belong to the certificate in ${server.cert}`],
        [
          ["--tcp", "192.0.2.1:1", ...tls(server.key)],
          "listening on 192.0.2.1:1 failed: address not available"
        ],
        [
          ["--spec-dir", folder, "--name", "taken"],
          `${spec}: another plugin of this name is described here; remove the file, or choose another name`
        ]
      ]
      for (const [args, message] of rows) {
        const tcp = args.includes("--tcp") ? [] : ["--tcp", "127.0.0.1:0"]
        const state = ["--state", Path.join(folder, "state")]
        const { code, stderr } = yield* host.exec(process.execPath, [...serve, ...state, ...tcp, ...args])
        assert.strictEqual(`${code} ${stderr.trim().split("\n").at(-1)}`, `1 portmapper: ${message}`)
      }
    })
  )
})
