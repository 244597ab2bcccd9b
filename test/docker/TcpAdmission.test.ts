import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { serveTcp } from "../../adapters/docker/PluginTcp.ts"
import { tcpAdmission } from "../../adapters/docker/TcpAdmission.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { makeCertificates } from "../support/certificates.ts"
import { echo } from "../support/drivers.ts"
import { statusOf } from "../support/hostileRequests.ts"

describe("a listener on a loopback address", () => {
  it.each([
    ["127.0.0.1", true],
    ["127.9.9.9", true],
    ["::1", true],
    ["::ffff:127.0.0.1", true],
    ["198.51.100.7", false],
    ["::ffff:198.51.100.7", false],
    ["fe80::1%eth0", false],
    ["0.0.0.0", false],
    ["", false]
  ])("is asked from %s: %s", (from, admitted) => {
    const socket = Object.create(new Net.Socket(), { remoteAddress: { value: from } })
    assert.strictEqual(tcpAdmission("localhost", "127.0.0.1", undefined).admits(socket), admitted)
    assert.strictEqual(tcpAdmission("localhost", "::1", undefined).admits(socket), admitted)
    assert.isTrue(tcpAdmission("0.0.0.0", "0.0.0.0", undefined).admits(socket))
  })

  const own = Object.values(Os.networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address

  it.live.skipIf(own === undefined)(
    "closes a connection from any other address before it reads from it (skipped on a host with none)",
    () =>
      Effect.gen(function* () {
        const { port } = yield* serveTcp({ host: "127.0.0.1", port: 0 })
        const status = (localAddress: string) =>
          Effect.promise(() =>
            statusOf(
              Net.connect({ host: "127.0.0.1", port, localAddress }),
              "POST /Plugin.Activate HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
          )
        assert.strictEqual(yield* status(own ?? ""), 0)
        assert.strictEqual(yield* status("127.0.0.2"), 200)
      }).pipe(Effect.provideService(Driver, echo))
  )
})

describe("a Host", () => {
  const at = (host: string, address = host, certificate?: () => string) => {
    const { isOwnHost } = tcpAdmission(host, address, certificate)
    const names = [
      "localhost",
      "Plugin.Moby.Localhost",
      "127.1.2.3",
      "[::1]",
      "198.51.100.1",
      "[2001:db8::1]"
    ]
    return [...names, "plugin.example", "evil.example"].filter(isOwnHost)
  }
  const always = ["localhost", "Plugin.Moby.Localhost", "127.1.2.3", "[::1]"]

  it("is accepted where it is a name of this host or a listening address", () => {
    assert.deepStrictEqual(at("127.0.0.1"), always)
    assert.deepStrictEqual(at("198.51.100.1"), [...always, "198.51.100.1"])
    assert.deepStrictEqual(at("Plugin.example", "198.51.100.1"), [
      ...always,
      "198.51.100.1",
      "plugin.example"
    ])
  })

  it("is accepted as any address where the server listens on every address", () => {
    assert.deepStrictEqual(at("0.0.0.0"), [...always, "198.51.100.1", "[2001:db8::1]"])
  })

  it("is accepted where our certificate names it", () => {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "portmapper-host-"))
    try {
      const { named } = makeCertificates(folder)
      assert.deepStrictEqual(
        at("0.0.0.0", "0.0.0.0", () => Fs.readFileSync(named.cert, "utf8")),
        [...always, "198.51.100.1", "[2001:db8::1]", "plugin.example"]
      )
    } finally {
      Fs.rmSync(folder, { recursive: true, force: true })
    }
  })
})
