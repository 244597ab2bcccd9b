/** Ports published at an interface: packets reach them at the addresses that it has, as these come and go. */

import { isDeepStrictEqual } from "node:util"
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"
import { portmapper } from "../support/command.ts"
import { until } from "../support/until.ts"

interface Row {
  readonly FrontendIP: string
  readonly FrontendPort: number
  readonly State: string
  readonly Labels: Readonly<Record<string, string>>
}

/** `10.99.0.1:8080 live`, or with the error of a row that has one. */
const rows = ({ call }: Plugin.Plugin) =>
  Effect.map(call("ListPorts", {}), ({ body }) =>
    (JSON.parse(body) as { readonly Mappings: ReadonlyArray<Row> }).Mappings.map(
      ({ FrontendIP, FrontendPort, State, Labels }) =>
        `${FrontendIP}:${FrontendPort} ${Labels["portmapper.error"] ?? State}`
    ).sort()
  )

const untilListed = (plugin: Plugin.Plugin, expected: ReadonlyArray<string>) =>
  until(rows(plugin), (seen) => isDeepStrictEqual(seen, expected.toSorted()))

const follow = (
  { call }: Plugin.Plugin,
  publish: string,
  to: ReadonlyArray<string> = ["172.31.0.2", "fd66::2"],
  labels: Readonly<Record<string, string>> = {}
) => call("FollowInterface", { To: to, Publish: [publish], Labels: labels })

const unfollow = ({ call }: Plugin.Plugin, port: number, name: string) =>
  call("UnmapPorts", {
    PortBindings: [
      { Proto: 6, FrontendIP: "", FrontendPort: port, BackendIP: "172.31.0.2", BackendPort: 80 }
    ],
    Labels: { "portmapper.interface": name }
  })

const ask = (from: Namespace, host: string, timeoutMillis = silenceMillis) =>
  Effect.map(
    from.agent.tcp({ host, port: 8080, close: "reset", timeoutMillis }),
    ({ outcome, answer }) => answer?.who ?? outcome
  )

const serving = Effect.gen(function* () {
  const lab = yield* Lab.make({ secondClient: true })
  yield* lab.c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
  yield* lab.c1.agent.echo({ protocol: "tcp", host: "::", port: 80 })
  return { ...lab, c1: lab.c1, c2: lab.c2, plugin: yield* Plugin.start(lab.host) }
})

describeLab("ports at an interface", [], () => {
  it.live("are reached at its addresses, from outside, the host and containers, and at no other", () =>
    Effect.gen(function* () {
      const { client, get, host, c2, plugin } = yield* serving
      const mapped = yield* portmapper([
        ...["map", "-p", "up0:8080:80", "--to", "172.31.0.2", "--to", "fd66::2", "--socket", plugin.socket]
      ])
      assert.deepStrictEqual(mapped, {
        status: 0,
        stdout: "10.99.0.1:8080/tcp -> 172.31.0.2:80\n[fd99::1]:8080/tcp -> [fd66::2]:80\n",
        stderr: ""
      })
      for (const from of [client, host, c2])
        for (const address of ["10.99.0.1", "fd99::1"])
          assert.strictEqual(yield* ask(from, address), "c1", `${from.role} ${address}`)
      assert.strictEqual(yield* ask(c2, "172.31.0.1"), "refused")
      assert.strictEqual(yield* ask(get("client2"), "10.98.0.1"), "refused")
      // The weak host model: a packet that arrives by another interface is for the host all the same.
      assert.strictEqual(yield* ask(get("client2"), "10.99.0.1"), "c1")
      const allow = { "portmapper.allow": "10.99.0.0/24,fd99::/64" }
      assert.strictEqual((yield* follow(plugin, "up0:8080:80", undefined, allow)).status, 200)
      assert.strictEqual(yield* ask(get("client2"), "10.99.0.1"), "timeout")
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "c1")
    })
  )

  it.live("follow its addresses, its name, and itself", () =>
    Effect.gen(function* () {
      const { client, host, plugin } = yield* serving
      yield* follow(plugin, "up0:8080:80", ["172.31.0.2"])
      const first = ["10.99.0.1:8080 live", "fd99::1:8080 live"]
      assert.deepStrictEqual(yield* rows(plugin), first)

      yield* host.check("ip", ["address", "add", "10.99.0.9/24", "dev", "up0"])
      yield* until(ask(client, "10.99.0.9"), (who) => who === "c1")
      yield* host.check("ip", ["address", "delete", "10.99.0.9/24", "dev", "up0"])
      yield* untilListed(plugin, first)

      // The port of a new address may be taken: the others stay, and it is listed with the reason.
      yield* host.check("ip", ["address", "add", "10.99.0.10/24", "dev", "br0"])
      const held = yield* host.agent.hold({ protocol: "tcp", host: "10.99.0.10", port: 8080 })
      yield* host.sh("ip address delete 10.99.0.10/24 dev br0; ip address add 10.99.0.10/24 dev up0")
      const taken = "10.99.0.10:8080 bind for 10.99.0.10:8080/tcp failed: address already in use"
      yield* untilListed(plugin, ["10.99.0.1:8080 live", taken, "fd99::1:8080 live"])
      yield* held.stop
      yield* host.check("ip", ["address", "delete", "10.99.0.10/24", "dev", "up0"])
      yield* untilListed(plugin, first)

      yield* host.sh("ip link set up0 down; ip link set up0 name lan0; ip link set lan0 up")
      yield* untilListed(plugin, [":8080 there is no interface up0 now"])
      yield* follow(plugin, "lan0:8081:80", ["172.31.0.2"])
      assert.include(yield* rows(plugin), "10.99.0.1:8081 live")
      yield* host.sh("ip link set lan0 down; ip link set lan0 name up0; ip link set up0 up")
      yield* untilListed(plugin, ["10.99.0.1:8080 live", ":8081 there is no interface lan0 now"])
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "c1")
    })
  )

  it.live("are waited for, and kept through a kill, a restart and a takeover, until they are unmapped", () =>
    Effect.gen(function* () {
      const { client, host, plugin } = yield* serving
      const waiting = yield* portmapper([
        ...["map", "-p", "late0:8080:80", "--to", "172.31.0.2", "--socket", plugin.socket]
      ])
      assert.strictEqual(waiting.stdout, "waiting for an address of the interface late0: late0:8080:80\n")
      yield* untilListed(plugin, [":8080 there is no interface late0 now"])
      const { stdout } = yield* portmapper(["ls", "--socket", plugin.socket])
      assert.match(stdout, /^late0:8080\/tcp +172\.31\.0\.2:80 /m)
      assert.include(stdout, "172.31.0.2: late0:8080:80: there is no interface late0 now")

      yield* plugin.process.kill("SIGKILL")
      yield* plugin.process.wait()
      const second = yield* Plugin.start(host, { folder: plugin.folder })
      yield* untilListed(second, [":8080 there is no interface late0 now"])
      yield* host.sh(
        "ip link add late0 type bridge; ip address add 10.77.0.1/24 dev late0; ip link set late0 up"
      )
      yield* untilListed(second, ["10.77.0.1:8080 live"])
      yield* until(ask(client, "10.77.0.1"), (who) => who === "c1")

      // What comes and goes while no process is there is as if one had been.
      yield* second.process.kill("SIGKILL")
      yield* second.process.wait()
      yield* host.sh("ip address add 10.76.0.2/24 dev late0; ip address delete 10.77.0.1/24 dev late0")
      const third = yield* Plugin.start(host, { folder: plugin.folder })
      yield* untilListed(third, ["10.76.0.2:8080 live"])
      yield* until(ask(client, "10.76.0.2"), (who) => who === "c1")

      const fourth = yield* Plugin.start(host, { folder: plugin.folder, arguments: ["--takeover"] })
      assert.deepStrictEqual(yield* rows(fourth), ["10.76.0.2:8080 live"])
      yield* host.sh("ip address add 10.77.0.3/24 dev late0")
      yield* until(ask(client, "10.77.0.3"), (who) => who === "c1")

      const single = yield* portmapper(["unmap", "-p", "10.76.0.2:8080", "--socket", plugin.socket])
      assert.strictEqual(
        single.stderr,
        "portmapper: unmapping 10.76.0.2:8080/tcp failed: it is published at every address of the interface late0; to unmap it there: -p late0:8080\n"
      )
      const all = yield* portmapper(["unmap", "-p", "late0:8080", "--socket", plugin.socket])
      assert.deepStrictEqual(all, {
        status: 0,
        stdout: "unmapped 10.76.0.2:8080/tcp\nunmapped 10.77.0.3:8080/tcp\n",
        stderr: ""
      })
      assert.deepStrictEqual(yield* rows(fourth), [])
      yield* host.sh("ip address add 10.77.0.4/24 dev late0")
      yield* follow(fourth, "late0:9090:80", ["172.31.0.2"])
      yield* host.sh("ip link delete late0")
      yield* untilListed(fourth, [":9090 there is no interface late0 now"])
      assert.strictEqual((yield* unfollow(fourth, 9090, "late0")).status, 200)
      assert.deepStrictEqual(yield* rows(fourth), [])
    })
  )

  it.live("are all mapped or none, and refuse what would not be followed", () =>
    Effect.gen(function* () {
      const { host, plugin } = yield* serving
      const refused = (answer: Effect.Effect<{ readonly status: number; readonly body: string }, unknown>) =>
        Effect.map(answer, ({ status, body }) => `${status} ${(JSON.parse(body) as { Err: string }).Err}`)
      const held = yield* host.agent.hold({ protocol: "tcp", host: "fd99::1", port: 8080 })
      assert.strictEqual(
        yield* refused(follow(plugin, "up0:8080:80")),
        "500 bind for [fd99::1]:8080/tcp failed: address already in use"
      )
      assert.deepStrictEqual(yield* rows(plugin), [])
      yield* held.stop
      assert.strictEqual(
        yield* refused(follow(plugin, "8080:80")),
        '400 bad request: Publish[0] = "8080:80": must be INTERFACE:PORT:CONTAINERPORT, or be published with the label portmapper.interface'
      )
      assert.strictEqual(
        yield* refused(follow(plugin, "up0:8080:80", ["172.31.0.2", "172.31.0.3"])),
        '400 bad request: To[1] = "172.31.0.3": must be of another family than To[0]'
      )
      assert.strictEqual(
        yield* refused(follow(plugin, "late0:8080:80", undefined, { "portmapper.mode": "fast" })),
        '400 bad request: Labels["portmapper.mode"] = "fast": must be one of auto, nat, engine, proxy, routed'
      )
      for (const name of ["up0", "late0"])
        for (const [labels, why] of [
          [
            { "portmapper.mode": "routed" },
            `Labels["portmapper.mode"] = "routed": must be another one at the interface ${name}: mode routed has no host port, so it is published at no address`
          ],
          [
            { "portmapper.wake-count": "2" },
            'Labels["portmapper.wake-count"] = "2": must be beside portmapper.wake=on, by which a client starts the container'
          ]
        ] as const)
          assert.strictEqual(
            yield* refused(follow(plugin, `${name}:8080:80`, undefined, labels)),
            `400 bad request: ${why}`
          )
      const { status, error } = yield* plugin.map(["tcp 10.99.0.1:8080 172.31.0.2:80"], {
        "portmapper.interface": "up0"
      })
      assert.strictEqual(
        `${status} ${error}`,
        '400 bad request: Labels["portmapper.interface"] = "up0": must be left out here, where addresses are published: interfaces are followed for portmapper map -p INTERFACE:PORT:CONTAINERPORT, and for the same in the label portmapper.publish (serve --watch)'
      )
      assert.deepStrictEqual(yield* rows(plugin), [])
    })
  )
})
