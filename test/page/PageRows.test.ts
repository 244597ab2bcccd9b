import { assert, describe, it } from "@effect/vitest"
import { describe as describeRow, keyOf } from "../../src/page/PageRows.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { listed } from "./listed.ts"

const context = { drops: new Map(), reaching: "" }

const row = (more: Partial<ListedMapping> = {}, drops = context.drops) => {
  const one = listed(8080, more)
  return describeRow(keyOf(one), one, { ...context, drops })
}

const labels = (named: Readonly<Record<string, string>>) => ({ labels: new Map(Object.entries(named)) })

const atInterface = labels({ "portmapper.to": "172.17.0.2", "portmapper.publish": "eth0:8080:80" })

describe("a row of the page", () => {
  it("names the interface while that has no address", () => {
    const { key, address } = row({ ...atInterface, frontendIp: "" })
    assert.deepStrictEqual([key, address], ["tcp eth0:8080 172.17.0.2:80", "eth0"])
  })

  it("says everything that is listed, in plain JSON", () => {
    const all = row({
      ...labels({ "portmapper.allow": "10.0.0.0/8", "portmapper.share": ".shop-web/web" }),
      service: "web",
      open: 7,
      slots: { has: 32, of: 64 },
      container: "shop-web-1/0123456789ab",
      carriers: { socket: true, kernel: true, relay: "loopback" },
      refused: { allow: 3 }
    })
    assert.deepStrictEqual(all, {
      key: "tcp 0.0.0.0:8080 172.17.0.2:80",
      protocol: "tcp",
      address: "0.0.0.0",
      port: 8080,
      service: "web",
      backend: {
        address: "172.17.0.2",
        port: 80,
        container: "shop-web-1/0123456789ab",
        slots: { has: 32, of: 64 }
      },
      mode: "nat",
      owner: "engine",
      state: "live",
      since: 0,
      open: 7,
      refused: [{ label: "allow", count: 3 }],
      labels: [
        { name: "portmapper.allow", value: "10.0.0.0/8" },
        { name: "portmapper.share", value: "web" }
      ],
      carriers: { socket: true, kernel: true, relay: "loopback" },
      problem: null,
      unmap: "portmapper unmap -p 0.0.0.0:8080 --to 172.17.0.2 --owner engine"
    })
    assert.deepStrictEqual(JSON.parse(JSON.stringify(all)), all)
  })

  it.each(["asleep", "drained", "conflicted"] as const)(
    "shows no address of a container that does not run, also where it is %s",
    (state) => {
      const asleep = row({
        state,
        backendIp: "100::1",
        service: "web",
        container: "web-1/0123456789ab"
      })
      assert.deepStrictEqual(
        [asleep.backend.address, asleep.unmap],
        ["", "portmapper unmap -p 0.0.0.0:8080 --to web-1 --owner engine"]
      )
    }
  )

  it("has a key for each request that watch could not publish, which may lack a backend", () => {
    const failed = (container: string) =>
      keyOf(
        listed(8080, {
          backendIp: "",
          ...labels({
            "portmapper.error": "no",
            "portmapper.container": container,
            "portmapper.publish": "8080:80"
          })
        })
      )
    assert.strictEqual(failed("a"), "tcp 0.0.0.0:8080 :80 a 8080:80")
    assert.notStrictEqual(failed("a"), failed("b"))
  })

  it.each<readonly [string, Partial<ListedMapping>, string | null]>([
    ["IPv6", { frontendIp: "::1", protocol: 17 }, "-p '[::1]:8080/udp' --owner engine"],
    ["its maker's own", { owner: "cli" }, "-p 0.0.0.0:8080"],
    ["an owner that a shell would run", { owner: "a;$(b)'" }, `-p 0.0.0.0:8080 --owner 'a;$(b)'\\'''`],
    ["one backend of a service", { service: "web" }, "-p 0.0.0.0:8080 --to 172.17.0.2 --owner engine"],
    [
      "what another one has the port of",
      { state: "conflicted", backendIp: "", container: "web-1/0123456789ab" },
      "-p 0.0.0.0:8080 --to web-1 --owner engine"
    ],
    ["an interface's", atInterface, "-p eth0:8080 --owner engine"],
    ["an interface's without an address", { ...atInterface, frontendIp: "" }, "-p eth0:8080 --owner engine"],
    ["none", { frontendPort: 0 }, null]
  ])("names the command that unmaps it: %s", (_, more, command) => {
    assert.strictEqual(row(more).unmap, command === null ? null : `portmapper unmap ${command}`)
  })

  it.each<readonly [string, Partial<ListedMapping>, string, RegExp]>([
    [
      "its port is taken by another process",
      { state: "conflicted", reason: "bind for 0.0.0.0:8080/tcp failed: address already in use" },
      "error",
      /: ss -Hlnpt 'sport = :8080';/
    ],
    [
      "UDP, too",
      { state: "conflicted", protocol: 17, reason: "address already in use" },
      "error",
      /ss -Hlnpu /
    ],
    ["it has no reason yet", { state: "conflicted" }, "error", /^look at the reason/],
    ["it is not relayed", { reason: "relay for 0.0.0.0:8080/tcp failed: no" }, "warning", /doctor/],
    [
      "its container does not wake",
      { state: "asleep", reason: "it ended while it was woken", container: "web-1/0123456789ab" },
      "warning",
      /^docker logs web-1$/
    ],
    [
      "watch could not publish it",
      {
        state: "conflicted",
        reason: "port is already allocated",
        ...labels({ "portmapper.error": "port is already allocated" })
      },
      "error",
      /^unmap what has the port/
    ],
    [
      "its container is not ready",
      { state: "waiting", container: "web-1/0123456789ab" },
      "warning",
      /^docker inspect web-1$/
    ],
    ["stale", { state: "stale" }, "warning", /^portmapper unmap --stale$/],
    ["unconfirmed", { state: "unconfirmed" }, "warning", /^ask for it again/]
  ])("says what is wrong, and what to do: %s", (_, more, severity, remedy) => {
    const { problem } = row(more)
    assert.strictEqual(problem?.severity, severity)
    assert.match(problem?.remedy ?? "", remedy)
  })

  it("has doctor's finding where another program's rule drops its traffic", () => {
    const drop = { reason: "table inet f drops it", remedy: "nft insert rule …" }
    const drops = new Map([["0.0.0.0:8080/tcp", drop]])
    assert.deepStrictEqual(row({}, drops).problem, { severity: "error", ...drop })
    assert.isNull(row({ frontendPort: 8081 }, drops).problem)
  })

  it("is served and standing by without a problem", () => {
    assert.isNull(row().problem)
    assert.isNull(row({ state: "standby" }).problem)
  })

  it("keeps hostile texts as they are, and cuts those that are very long without halving a character", () => {
    const hostile = "<img src=x onerror=alert(1)>\u001b[31m\u202e"
    const long = `${"a".repeat(2046)}😀${"b".repeat(8000)}`
    const { labels: shown, problem } = row({
      state: "conflicted",
      reason: long,
      ...labels({ "portmapper.container": hostile })
    })
    assert.strictEqual(shown[0]?.value, hostile)
    assert.strictEqual(problem?.reason, `${"a".repeat(2046)}…`)
  })
})
