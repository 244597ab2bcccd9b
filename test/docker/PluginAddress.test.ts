import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { parsePluginUrl } from "../../adapters/docker/PluginAddress.ts"

describe("a URL", () => {
  it.each([
    ["unix:///run/p.sock", { _tag: "Pipe", path: "/run/p.sock", text: "/run/p.sock" }],
    ["npipe:////./pipe/p", { _tag: "Pipe", path: "\\\\.\\pipe\\p", text: "//./pipe/p" }],
    [
      "http://localhost",
      { _tag: "Net", host: "localhost", port: 80, tls: false, text: "http://localhost:80" }
    ],
    ["http://[::1]:9000/", { _tag: "Net", host: "::1", port: 9000, tls: false, text: "http://[::1]:9000" }],
    ["https://h", { _tag: "Net", host: "h", port: 443, tls: true, text: "https://h:443" }],
    ["tcp://h:1", { _tag: "Net", host: "h", port: 1, tls: false, text: "http://h:1" }],
    ["tcp://h", "the port is missing"],
    ["http://h:0", "ports are 1 to 65535"],
    ["http://h/x", "expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT"],
    ["/run/p.sock", "expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT"],
    ["http://u@h", "expected unix:///PATH, http://HOST:PORT, https://HOST:PORT or tcp://HOST:PORT"]
  ] as const)("%s", (url, expected) => {
    const address = parsePluginUrl(url, false)
    assert.deepStrictEqual(Result.isSuccess(address) ? address.success : address.failure, expected as unknown)
  })

  it("with TLS files is HTTPS or refused", () => {
    assert.deepStrictEqual(
      Result.map(parsePluginUrl("tcp://h:1", true), ({ text }) => text),
      Result.succeed("https://h:1")
    )
    assert.deepStrictEqual(
      parsePluginUrl("http://h", true),
      Result.fail("the TLS files are for https:// or tcp://")
    )
  })
})
