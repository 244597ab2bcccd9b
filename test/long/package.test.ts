/** The Debian package on a Debian machine: installed, upgraded while in use, removed, purged. */
import { execFileSync, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { copyFileSync, existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Debian from "../lab/Debian.ts"
import { describeLab, testNeeding } from "../lab/describeLab.ts"
import { knock } from "../lab/knock.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents, tables } from "../lab/Nft.ts"
import { expected } from "../support/download.ts"
import { labRequest } from "../support/requests.ts"
import { deriveRelease, makePackage, root } from "./packaging.ts"

const longMillis = 300_000

const build = (version: string): string => makePackage("deb", { PORTMAPPER_PACKAGE_VERSION: version })

testNeeding("lintian finds no error in the Debian package", ["lintian", "strip", "npm"], async () => {
  const { status, stdout } = spawnSync("lintian", ["--fail-on", "error,warning", build("0.1.0")], {
    encoding: "utf8"
  })
  assert.deepStrictEqual({ status, stdout }, { status: 0, stdout: "" })
})

/** Downloads by each port, which are at their half now; the effect lets them end, and returns what they had got. */
const downloading = Effect.fnUntraced(function* (
  backend: Namespace,
  client: Namespace,
  ports: ReadonlyArray<number>
) {
  const script = join(root, "test/support/download.ts")
  const server = yield* backend.spawn(process.execPath, [script, "serve", "90"])
  yield* server.waitForLine("serving", { timeoutMillis: longMillis })
  const clients = yield* Effect.forEach(ports, (port) =>
    client.spawn(process.execPath, [script, "get", "10.99.0.1", String(port)])
  )
  for (const each of clients) yield* each.waitForLine("half", { timeoutMillis: longMillis })
  return Effect.andThen(
    server.write("go\n"),
    Effect.forEach(clients, (each) => each.waitForLine(/^(\d|failed)/, { timeoutMillis: longMillis }))
  )
})

const mainPidOf = (debian: Debian.Debian) =>
  debian.sh("systemctl show --property=MainPID --value portmapper.service")

describeLab("the Debian package", ["mmdebstrap", "strip", "npm"], () => {
  it("has the same bytes in every build", () => {
    const hash = () => {
      execFileSync("npm", ["run", "-s", "build"], { cwd: root, stdio: "ignore" })
      return createHash("sha256")
        .update(readFileSync(build("0.1.0")))
        .digest("hex")
    }
    assert.strictEqual(hash(), hash())
  })

  it.live("is installed, upgraded without a refused connection, removed and purged", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      yield* c1.agent.echo({ protocol: "udp", host: "0.0.0.0", port: 53 })
      const debian = yield* Debian.make(host, ["nftables", "iproute2", "curl"])
      const before = yield* debian.sh("find /etc /usr /var/lib/systemd -xdev | grep -v dpkg | sort")
      const old = build("0.1.0")
      copyFileSync(old, `${debian.root}/srv/old.deb`)
      deriveRelease(old, `${debian.root}/srv/new.deb`, "0.1.1")

      yield* debian.sh("dpkg -i /srv/old.deb")
      yield* debian.sh(
        "systemctl is-active portmapper.service portmapper.socket && portmapper doctor || true"
      )
      yield* debian.sh("portmapper map -p 8080:80 --to 172.31.0.2")
      yield* debian.sh("portmapper map -p 8081:80 --to 172.31.0.2 --label portmapper.mode=proxy")
      yield* debian.sh("portmapper map -p 5353:53/udp --to 172.31.0.2 --label portmapper.mode=proxy")
      for (const options of ["", " --label portmapper.mode=proxy"])
        yield* debian.sh(`portmapper map -p ${options === "" ? 8090 : 8091}:90 --to 172.31.0.2${options}`)
      const mainPid = mainPidOf(debian)
      const first = yield* mainPid

      // Nothing was replaced: the same process goes on.
      yield* debian.sh("systemctl reload portmapper.service")
      assert.strictEqual(yield* mainPid, first)

      const redirected = yield* client.agent.transfer({ host: "10.99.0.1", port: 8080 })
      const carried = yield* host.agent.transfer({ host: "127.0.0.1", port: 8081 })
      const socket = `${debian.root}/run/docker/plugins/portmapper.sock`
      const downloads = yield* downloading(c1, client, [8090, 8091])
      // From either side to either port: 200 new connections a second.
      const knocks = { tcp: [8080, 8081], udp: [5353], socket, rate: 50 }
      const outside = yield* knock(client, { ...knocks, host: "10.99.0.1", request: labRequest(8082) })
      const inside = yield* knock(host, { ...knocks, host: "127.0.0.1", request: labRequest(8083) })
      const upgrade = yield* debian.sh("dpkg -i /srv/new.deb")
      assert.notInclude(upgrade, "could not take over")
      const second = yield* mainPid
      assert.notStrictEqual(second, first)
      assert.strictEqual((yield* redirected.advance(5, { timeoutMillis: 10_000 })).state, "open")
      yield* carried.stop
      assert.deepStrictEqual(yield* downloads, [expected(), expected()])
      for (const knocked of [yield* outside, yield* inside])
        assert.deepStrictEqual(knocked.failures, [], JSON.stringify(knocked.counts))
      assert.include(yield* debian.sh("systemctl status portmapper.service"), "active (running)")
      assert.include(
        yield* debian.sh("readlink /proc/$(systemctl show --property=MainPID --value portmapper)/exe"),
        "/usr/lib/portmapper/node\n"
      )

      // A stop ends both units; a call to the socket alone starts the service.
      yield* debian.sh("systemctl stop portmapper.service")
      assert.include(yield* debian.sh("portmapper ls"), "0.0.0.0:8080/tcp")

      const removal = yield* debian.sh("dpkg -r portmapper")
      assert.include(removal, "still publishes")
      assert.include(Object.keys(yield* contents(host)), "any4")
      const answered = yield* client.agent.tcp({ host: "10.99.0.1", port: 8080, timeoutMillis: 5000 })
      assert.strictEqual(answered.outcome, "answered")
      assert.isTrue(existsSync(`${debian.root}/etc/default/portmapper`))

      yield* debian.sh("dpkg -P portmapper && systemctl daemon-reload")
      assert.deepStrictEqual(yield* tables(host), [])
      assert.strictEqual(
        yield* debian.sh("find /etc /usr /var/lib/systemd -xdev | grep -v dpkg | sort"),
        before
      )
      assert.strictEqual(
        yield* debian.sh(
          "find /run -name '*portmapper*'; readlink /proc/[0-9]*/exe | grep portmapper || true"
        ),
        ""
      )
    })
  )

  it.live(
    "starts a release anew that hands over differently, and refuses one that can't read the record",
    () =>
      Effect.gen(function* () {
        const { host, client, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        const debian = yield* Debian.make(host, ["nftables", "iproute2"])
        const old = build("0.1.0")
        const at = (version: string) => `${debian.root}/srv/${version}.deb`
        copyFileSync(old, at("0.1.0"))
        deriveRelease(old, at("0.1.1"), "0.1.1")
        deriveRelease(old, at("0.2.0"), "0.2.0", { handover: true })
        deriveRelease(old, at("0.3.0"), "0.3.0", { handover: true, record: true })
        const install = (version: string) => debian.sh(`dpkg -i /srv/${version}.deb`)
        const mainPid = mainPidOf(debian)
        const anew = "the new version could not take over; it is started anew"
        yield* install("0.1.1")
        yield* debian.sh("portmapper map -p 8080:80 --to 172.31.0.2")
        const redirected = yield* client.agent.transfer({ host: "10.99.0.1", port: 8080 })
        const goesOn = Effect.gen(function* () {
          assert.strictEqual((yield* redirected.advance(5, { timeoutMillis: 30_000 })).state, "open")
          assert.include(yield* debian.sh("portmapper ls"), "0.0.0.0:8080/tcp")
        })

        // Back to a release of the same formats: a takeover as well.
        assert.notInclude(yield* install("0.1.0"), anew)
        yield* goesOn
        assert.include(yield* install("0.2.0"), anew)
        yield* goesOn
        assert.notInclude(yield* install("0.3.0"), anew)
        yield* goesOn

        const serving = yield* mainPid
        const refused = yield* debian.exec("dpkg -i /srv/0.2.0.deb")
        assert.notStrictEqual(refused.code, 0)
        assert.match(
          refused.stderr,
          /the record in \/run\/portmapper is of version \d+, and this package reads up to \d+; the installed one serves on/
        )
        assert.strictEqual(yield* mainPid, serving)
        assert.match(yield* debian.sh("dpkg -s portmapper"), /^Status: install ok[\s\S]*^Version: 0\.3\.0$/m)
        yield* goesOn

        const [, way = ""] = /and then install this one: (.*)/.exec(refused.stderr) ?? []
        yield* debian.sh(way)
        yield* redirected.stop
        assert.deepStrictEqual(yield* tables(host), [])
        yield* install("0.2.0")
        yield* debian.sh("systemctl start portmapper.service && portmapper map -p 8080:80 --to 172.31.0.2")
        const answered = yield* client.agent.tcp({ host: "10.99.0.1", port: 8080, timeoutMillis: 5000 })
        assert.strictEqual(answered.outcome, "answered")
      })
  )
})
