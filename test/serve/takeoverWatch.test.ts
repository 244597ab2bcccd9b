/**
 * A successor with a watch, while its predecessor is slow: it changes no mapping before the predecessor has let go.
 */
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { silenceMillis } from "../lab/patience.ts"
import { fakeEngine, ping, type Script } from "../support/engine.ts"
import { request } from "../support/http.ts"

const startMillis = 60_000
const waiting = { timeoutMillis: startMillis }
const speaker = fileURLToPath(new URL("../support/speaker.ts", import.meta.url))

const running = (name: string, publish: string) => ({
  Id: Buffer.from(name).toString("hex").padEnd(64, "0"),
  Names: [`/${name}`],
  ImageID: "image",
  State: "running",
  Labels: { "portmapper.publish": publish },
  HostConfig: { NetworkMode: "default" },
  NetworkSettings: { Networks: { bridge: { NetworkID: "n", IPAddress: "172.31.0.2" } } }
})

const old = running("old", "8080:80")
const other = running("new", "9090:80,9091:81")

/**
 * The port of `old` is published, and its plugin was stopped. Another plugin, which finds these containers, takes
 * over from a scripted predecessor, which has already received the request to let go.
 */
const amidTakeover = Effect.fnUntraced(function* (...found: ReadonlyArray<object>) {
  const { host } = yield* Lab.make()
  const script: Script = {
    ...ping("1.41"),
    "/containers/json": { body: [old] },
    "/images/image/json": { body: { Config: {} } },
    "/networks": { body: [{ Id: "n", Name: "bridge" }] },
    "/info": { body: { ServerVersion: "20.10.24" } },
    "/events": { body: "\n", open: true }
  }
  const engine = yield* fakeEngine(script)
  const env = { DOCKER_HOST: `unix://${engine.path}` }
  const stopped = yield* Plugin.start(host, { startMillis, env, arguments: ["--watch"] })
  const { folder, socket } = stopped
  yield* stopped.process.waitForLine("old: 1 port published", waiting)
  yield* stopped.process.stop
  const before = yield* contents(host)
  assert.deepStrictEqual(before["any4"], ["tcp . 8080 : 172.31.0.2 . 80"])

  script["/containers/json"] = { body: found }
  engine.asked.length = 0
  yield* host.check("iptables", ["-N", "DOCKER-USER"])
  const state = join(folder, "state")
  const predecessor = yield* host.spawn(process.execPath, [
    ...[speaker, "listen", join(state, "handover.sock"), "busy"]
  ])
  yield* predecessor.waitForLine("listening", waiting)
  const successor = yield* host.spawn(
    process.execPath,
    [
      ...["adapters/cli/main.ts", "serve", "--socket", socket, "--state", state],
      ...["--takeover", "--watch", "--release-on-exit"]
    ],
    { env, graceMillis: 20_000 }
  )
  yield* predecessor.waitForLine('0 {"_tag":"Hello","version":2}', waiting)
  yield* predecessor.write('{"_tag":"Accepted"}\n{"_tag":"Handed"}\n')
  yield* predecessor.waitForLine('0 {"_tag":"Ready"}', waiting)
  while (!engine.asked.some((target) => target.includes("/containers/json"))) yield* Effect.sleep(20)
  // Time enough for the watch to do what it must not.
  yield* Effect.sleep(1_000)
  assert.deepStrictEqual(yield* contents(host), before)
  assert.deepStrictEqual(yield* dockerUser(host), [])
  return { before, folder, host, predecessor, socket, successor }
})

const dockerUser = (host: Namespace) =>
  Effect.map(host.check("iptables", ["-S", "DOCKER-USER"]), (text) =>
    text.split("\n").filter((line) => line.startsWith("-A"))
  )

describeLab("a successor with a watch", ["iptables"], () => {
  it.live("maps nothing before its predecessor has let go, and everything afterwards", () =>
    Effect.gen(function* () {
      const { host, predecessor, successor } = yield* amidTakeover(old, other)
      assert.notInclude(successor.lines("stderr").join("\n"), "listening on")
      yield* predecessor.write('{"_tag":"Released"}\n')
      yield* successor.waitForLine("new: 2 ports published", waiting)
      assert.deepStrictEqual((yield* contents(host))["any4"], [
        "tcp . 8080 : 172.31.0.2 . 80",
        "tcp . 9090 : 172.31.0.2 . 80",
        "tcp . 9091 : 172.31.0.2 . 81"
      ])
      yield* successor.waitForLine("DOCKER-USER accepts the mark", waiting)
      const rule = "-m mark --mark 0x1000/0x1000 -m conntrack --ctstate DNAT -m comment --comment portmapper"
      assert.deepStrictEqual(yield* dockerUser(host), [`-A DOCKER-USER ${rule} -j ACCEPT`])
      yield* successor.stop
      assert.deepStrictEqual(successor.ended(), { code: 0, signal: null })
      assert.deepStrictEqual(yield* contents(host), {})
      assert.deepStrictEqual(yield* dockerUser(host), [])
    })
  )

  it.live(
    "that fails drains nothing and releases nothing, neither the ports without a container nor all of them at its end",
    () =>
      Effect.gen(function* () {
        const { before, folder, host, predecessor, socket, successor } = yield* amidTakeover(other)
        const drain = JSON.stringify({ Backend: "172.31.0.2", Ports: [] })
        const drained = yield* Effect.timeoutOption(
          Effect.promise((signal) => request(socket, "/PortMapper.Drain", drain, { signal })),
          silenceMillis
        )
        assert.deepStrictEqual(drained, Option.none())
        yield* predecessor.write('{"_tag":"Aborted","reason":"it had second thoughts"}\n')
        assert.deepStrictEqual(yield* successor.wait(waiting), { code: 1, signal: null })
        assert.strictEqual(
          successor.lines("stderr").at(-1),
          `portmapper: taking over: process ${predecessor.pid} serves again: it had second thoughts`
        )
        assert.deepStrictEqual(yield* contents(host), before)
        assert.deepStrictEqual(yield* dockerUser(host), [])
        yield* predecessor.stop
        const next = yield* Plugin.start(host, { startMillis, folder })
        const { Mappings } = JSON.parse((yield* next.call("ListPorts", {})).body) as {
          readonly Mappings: ReadonlyArray<Readonly<Record<string, unknown>>>
        }
        assert.deepStrictEqual(
          Mappings.map(({ FrontendIP, FrontendPort, Owner, State }) => [
            FrontendIP,
            FrontendPort,
            Owner,
            State
          ]),
          [
            ["0.0.0.0", 8080, "watch", "live"],
            ["::", 8080, "watch", "live"]
          ]
        )
      })
  )
})
