/** What clients notice when one plugin takes over from another: nothing. */
import { existsSync, renameSync, rmSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { isDeepStrictEqual } from "node:util"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option } from "effect"
import { socketAddress } from "../../adapters/docker/PluginAddress.ts"
import { makeClient } from "../../adapters/docker/PluginClient.ts"
import { describeLab, testNeeding } from "../lab/describeLab.ts"
import { knock } from "../lab/knock.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { descriptorKinds, listening } from "../lab/Probe.ts"
import type { Running } from "../lab/Running.ts"
import { makeCertificates } from "../support/certificates.ts"
import type { Halfway } from "../support/halfSuccessor.ts"
import { request } from "../support/http.ts"
import { labRequest } from "../support/requests.ts"
import { until } from "../support/until.ts"

/** The machine may be busy: enough for a start, a handover, an end. */
const startMillis = 60_000
const program = ["adapters/cli/main.ts"]
/** How long an Engine waits for an answer. */
const engineMillis = 15_000
const web = "tcp 0.0.0.0:8080 172.31.0.2:80"
const relayed = { host: "127.0.0.1", port: 8080 }

const takeOver = (host: Namespace, { folder }: Plugin.Plugin, ...more: ReadonlyArray<string>) =>
  Plugin.start(host, { folder, program, startMillis, arguments: ["--takeover", ...more] })

describeLab("a takeover", [], () => {
  it.live("drops no connection attempt, no request, no packet, and no open connection", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      yield* c1.agent.echo({ protocol: "udp", host: "0.0.0.0", port: 53 })
      const first = yield* Plugin.start(host, { program, startMillis, arguments: ["--grace", "60s"] })
      yield* first.map([web])
      yield* first.map(["tcp 0.0.0.0:8081 172.31.0.2:80"], { "portmapper.mode": "proxy" })
      yield* first.map(["udp 0.0.0.0:5353 172.31.0.2:53"], { "portmapper.mode": "proxy" })
      const redirected = yield* client.agent.transfer({ host: "10.99.0.1", port: 8080 })
      const carried = yield* host.agent.transfer(relayed)
      const knocker = yield* knock(host, {
        host: "127.0.0.1",
        tcp: [8080, 8081],
        udp: [5353],
        socket: first.socket,
        request: labRequest(8080)
      })
      let last = first
      for (let turn = 0; turn < 2; turn++) {
        const next = yield* takeOver(host, last, "--grace", "60s")
        // The answers of UDP backends are awaited; connections need no port.
        yield* eventually(listening(host, { pid: last.process.pid }), [])
        if (turn > 0) assert.deepStrictEqual(yield* last.process.wait({ timeoutMillis: startMillis }), ended)
        last = next
      }
      assert.strictEqual((yield* redirected.advance(5, { timeoutMillis: 10_000 })).state, "open")
      // The connection goes on in the first process, which waits for its end.
      assert.strictEqual((yield* carried.advance(5, { timeoutMillis: 10_000 })).state, "open")
      assert.isUndefined(first.process.ended())
      yield* carried.stop
      assert.deepStrictEqual(yield* first.process.wait({ timeoutMillis: startMillis }), ended)
      const { counts, failures } = yield* knocker
      assert.deepStrictEqual(failures, [], JSON.stringify(counts))
      assert.strictEqual((yield* last.map([web])).status, 200)
    })
  )

  it.live("keeps the mark that answers rest on, and is refused with one that contradicts it", () =>
    Effect.gen(function* () {
      const { host, client, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      // An Engine's filter.
      yield* host.check("nft", ["-f", "-"], {
        input: `table inet engine {
  chain forward {
    type filter hook forward priority 0; policy accept;
    oifname br0 ct state established,related accept
    oifname br0 meta mark & 0x10 != 0x10 drop
  }
}
`
      })
      const marked = ["--accept-fwmark", "0x10/0xf0"]
      const first = yield* Plugin.start(host, { program, startMillis, arguments: marked })
      const { bindings } = yield* first.map([web])
      const answered = Effect.map(
        client.agent.tcp({ host: "10.99.0.1", port: 8080, timeoutMillis: 5000 }),
        ({ outcome }) => assert.strictEqual(outcome, "answered")
      )
      yield* answered
      const wrong = yield* host.exec(process.execPath, [
        ...[...program, "serve", "--takeover", "--socket", first.socket],
        ...["--state", join(first.folder, "state"), "--accept-fwmark", "0x20/0xf0"]
      ])
      assert.strictEqual(wrong.code, 1)
      assert.include(
        wrong.stderr,
        "portmapper: the mark 0x20/0xf0 contradicts 0x10/0xf0, which published ports rest on: give --accept-fwmark 0x10/0xf0 until they are unmapped\n"
      )
      yield* answered
      assert.strictEqual((yield* first.map([web])).status, 200)
      const second = yield* takeOver(host, first)
      yield* second.process.waitForLine("marking what is redirected 0x10/0xf0: published ports rest on it")
      yield* answered
      const [again] = (yield* second.map([web])).bindings
      assert.deepStrictEqual([bindings[0]?.AllowForwarding, again?.AllowForwarding], [false, true])
      // Nothing rests on it any more.
      yield* second.unmap(bindings)
      const third = yield* takeOver(host, second)
      yield* third.map([web])
      assert.notInclude(yield* host.check("nft", ["list", "table", "inet", "portmapper"]), "; mark ")
    })
  )

  it.live("hands over more than a thousand ports, each of which is free once it is unmapped", () =>
    Effect.gen(function* () {
      const { host, c1, client } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const first = yield* Plugin.start(host, { program, startMillis })
      const bindings: Array<Plugin.WireBinding> = []
      for (let port = 10_000; port < 11_200; port++)
        bindings.push(...(yield* first.map([`tcp 0.0.0.0:${port} 172.31.0.2:80`])).bindings)
      const carried = yield* host.agent.transfer({ host: "127.0.0.1", port: 10_000 })
      const second = yield* takeOver(host, first)
      assert.strictEqual((yield* listening(host, { pid: second.process.pid })).length, 1200)
      assert.deepStrictEqual(yield* listening(host, { pid: first.process.pid }), [])
      assert.strictEqual((yield* contents(host))["any4"]?.length, 1200)
      for (const address of ["127.0.0.1", "10.99.0.1"]) {
        const from = address === "127.0.0.1" ? host : client
        const { outcome } = yield* from.agent.tcp({ host: address, port: 11_199, timeoutMillis: 5000 })
        assert.strictEqual(outcome, "answered", address)
      }
      // The first process still has a connection to drain, and holds no port.
      assert.isUndefined(first.process.ended())
      assert.strictEqual((yield* second.unmap(bindings)).status, 200)
      const taken = yield* host.agent.hold({ protocol: "tcp", host: "0.0.0.0", port: 10_000 })
      yield* taken.stop
      yield* carried.stop
      yield* first.process.wait({ timeoutMillis: startMillis })

      const relayOnce = Effect.fnUntraced(function* (plugin: Plugin.Plugin) {
        const mapped = yield* plugin.map([web])
        const { outcome } = yield* host.agent.tcp({ ...relayed, timeoutMillis: 5000 })
        assert.strictEqual(outcome, "answered")
        yield* plugin.unmap(mapped.bindings)
      })
      yield* relayOnce(second)
      const before = yield* descriptorKinds(second.process.pid)
      const third = yield* takeOver(host, second)
      yield* relayOnce(third)
      yield* eventually(descriptorKinds(third.process.pid), before)
    })
  )

  it.live("fails where the new process dies on the way, and the old one keeps serving", () =>
    Effect.gen(function* () {
      const { host, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const plugin = yield* Plugin.start(host, { program, startMillis })
      const { bindings } = yield* plugin.map([web])
      const carried = yield* host.agent.transfer(relayed)
      const knocker = yield* knock(host, {
        host: "127.0.0.1",
        tcp: [8080],
        udp: [],
        socket: plugin.socket,
        request: labRequest(8080)
      })
      for (const [index, halfway] of halfways.entries()) {
        const half = yield* host.spawn(process.execPath, [
          support("halfSuccessor.ts"),
          handoverOf(plugin),
          halfway
        ])
        yield* half.wait({ timeoutMillis: startMillis })
        const port = 9000 + index
        const mapped = yield* plugin.map([`tcp 0.0.0.0:${port} 172.31.0.2:80`])
        assert.strictEqual(mapped.status, 200, `${halfway}: ${mapped.error}`)
        assert.strictEqual((yield* plugin.unmap(mapped.bindings)).status, 200)
      }
      const taken = yield* host.exec(process.execPath, [
        ...[...program, "serve", "--takeover", "--socket", join(plugin.folder, "other.sock")],
        ...["--state", join(plugin.folder, "state"), "--tcp", "127.0.0.1:8080"]
      ])
      assert.strictEqual(taken.code, 1)
      assert.match(taken.stderr, /^portmapper: listening on 127.0.0.1:8080 failed: address already in use$/m)
      assert.strictEqual((yield* carried.advance(5, { timeoutMillis: 10_000 })).state, "open")
      const saidAgain = Effect.sync(
        () => plugin.process.lines("stderr").filter((line) => line.includes("serving again")).length
      )
      // Each of them but the one that sent nothing.
      yield* eventually(saidAgain, halfways.length - 1 + 1)
      const { counts, failures } = yield* knocker
      assert.deepStrictEqual(failures, [], JSON.stringify(counts))
      yield* carried.stop
      assert.strictEqual((yield* plugin.unmap(bindings)).status, 200)
      assert.deepStrictEqual(yield* listening(host, { pid: plugin.process.pid }), [])
      assert.deepStrictEqual(yield* contents(host), {})
    })
  )

  it.live("that freezes at any step leaves every call answered before an Engine gives up", () =>
    Effect.gen(function* () {
      const { host, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const plugin = yield* Plugin.start(host, { program, startMillis })
      yield* plugin.map([web])
      const isServed = Effect.fnUntraced(function* (where: string) {
        const mapped = yield* Effect.timeoutOption(
          plugin.map(["tcp 0.0.0.0:9000 172.31.0.2:80"]),
          engineMillis
        )
        assert.strictEqual(Option.getOrUndefined(mapped)?.status, 200, where)
        yield* plugin.unmap(Option.getOrThrow(mapped).bindings)
      })
      for (const halfway of halfways) {
        const half = yield* host.spawn(process.execPath, [
          ...[support("halfSuccessor.ts"), handoverOf(plugin), halfway, "freeze"]
        ])
        const isFrozen = Effect.map(
          host.check("cat", [`/proc/${half.pid}/stat`]),
          (stat) => stat.slice(stat.lastIndexOf(")") + 2)[0] === "T"
        )
        yield* eventually(isFrozen, true)
        yield* isServed(halfway)
        yield* half.kill("SIGKILL")
      }
      const said = plugin.process.lines("stderr").length
      let successor: Running | undefined
      const starting = yield* Effect.forkChild(
        Effect.exit(
          Plugin.start(host, {
            ...{ folder: plugin.folder, program, startMillis, arguments: ["--takeover"] },
            onSpawn: (running) => {
              successor = running
            }
          })
        ),
        { startImmediately: true }
      )
      yield* plugin.process.waitForLine(/process \d+ takes over/, {
        ...{ stream: "stderr", after: said, timeoutMillis: startMillis }
      })
      yield* successor?.kill("SIGSTOP") ?? Effect.void
      yield* isServed("the real one")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(starting)))
      assert.deepStrictEqual(successor?.ended(), { code: null, signal: "SIGKILL" })
    })
  )

  it.live("that fails while a third process holds the state ends once that one is done", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const plugin = yield* Plugin.start(host, { program, startMillis })
      yield* plugin.map([web])
      const half = yield* host.spawn(process.execPath, [
        ...[support("halfSuccessor.ts"), handoverOf(plugin), "got everything", "freeze"]
      ])
      yield* plugin.process.waitForLine(/process \d+ takes over/, {
        ...{ stream: "stderr", timeoutMillis: startMillis }
      })
      const third = yield* host.spawn(process.execPath, [
        ...[support("lockHolder.ts"), join(plugin.folder, "state"), "60 seconds"]
      ])
      yield* third.waitForLine("locked", { timeoutMillis: startMillis })
      const calling = yield* Effect.forkChild(plugin.map([web]), { startImmediately: true })
      yield* plugin.process.waitForLine(
        new RegExp(`waiting to serve again: .*/state is in use by process ${third.pid}`),
        { stream: "stderr", timeoutMillis: startMillis }
      )
      yield* third.kill("SIGKILL")
      assert.strictEqual((yield* Fiber.join(calling)).status, 200)
      assert.deepStrictEqual(yield* half.wait(), { code: null, signal: "SIGKILL" })
    })
  )

  it.live(
    "leaves a serving process, or everything for the next start, whichever of the two is killed and when",
    () =>
      Effect.gen(function* () {
        const { host, c1 } = yield* Lab.make()
        yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
        let holder = yield* Plugin.start(host, { program, startMillis })
        yield* holder.map([web])
        for (const [index, millis] of [0, 60, 300].entries())
          for (const killed of ["old", "new"] as const) {
            const old = holder
            const said = old.process.lines("stderr").length
            let successor: Running | undefined
            const starting = yield* Effect.forkChild(
              Effect.exit(
                Plugin.start(host, {
                  folder: old.folder,
                  program,
                  startMillis,
                  arguments: ["--takeover"],
                  onSpawn: (running) => {
                    successor = running
                  }
                })
              ),
              { startImmediately: true }
            )
            const waiting = { stream: "stderr", after: said, timeoutMillis: startMillis } as const
            yield* old.process.waitForLine(/process \d+ takes over/, waiting)
            yield* Effect.sleep(millis)
            yield* (killed === "old" ? old.process : (successor ?? old.process)).kill("SIGKILL")
            const started = yield* Fiber.join(starting)
            if (killed === "old") holder = yield* started
            else holder = yield* whoServes(host, old)
            const where = `${killed} one killed after ${millis} ms`
            const mapped = yield* holder.map([`tcp 0.0.0.0:${9000 + index} 172.31.0.2:80`])
            assert.strictEqual(mapped.status, 200, `${where}: ${mapped.error}`)
            assert.strictEqual((yield* holder.unmap(mapped.bindings)).status, 200, where)
            const { outcome } = yield* host.agent.tcp({ ...relayed, timeoutMillis: 10_000 })
            assert.strictEqual(outcome, "answered", where)
            assert.deepStrictEqual(
              yield* listening(host, { pid: holder.process.pid }),
              ["tcp 0.0.0.0:8080"],
              where
            )
          }
      }),
    300_000
  )

  testNeeding(
    "keeps every socket the plugin listens on, and notifies systemd of the new process",
    ["python", "curl"],
    () =>
      Effect.gen(function* () {
        const { host } = yield* Lab.make()
        const folder = yield* Plugin.temporaryFolder
        const at = (name: string) => join(folder, name)
        const { ca, client, server } = makeCertificates(folder)
        const receiver = yield* host.spawn("python3", [support("receive.py"), at("notify")])
        yield* receiver.waitForLine("{", { timeoutMillis: startMillis })
        const start = Effect.fnUntraced(function* (
          before: ReadonlyArray<string>,
          ...more: ReadonlyArray<string>
        ) {
          const [command = "", ...rest] = [...before, process.execPath, ...program, "serve"]
          const running = yield* host.spawn(command, [...rest, "--state", at("state"), ...more], {
            env: { NOTIFY_SOCKET: at("notify"), LISTEN_FDNAMES: "plugin" }
          })
          const line = yield* running.waitForLine(/^listening on (127\.\S+ with TLS|.*b\.sock)/, {
            timeoutMillis: startMillis
          })
          return { running, port: /127\.0\.0\.1:(\d+)/.exec(line)?.[1] ?? "" }
        })
        const tls = ["--tls-cert", server.cert, "--tls-key", server.key, "--tls-ca", ca.cert]
        const tcp = ["--tcp", "127.0.0.1:0", "--spec-dir", folder, ...tls]
        const isAsked = (port: string) =>
          host.check("curl", [
            ...["--silent", "--show-error", "--request", "POST", "--cacert", ca.cert],
            ...["--cert", client.cert, "--key", client.key, `https://127.0.0.1:${port}/Plugin.Activate`]
          ])
        const activate = ["python3", support("activate.py"), JSON.stringify([at("passed.sock")]), "1"]
        const first = yield* start(activate, "--socket", at("a.sock"), ...tcp)
        const activated = yield* isAsked(first.port)
        assert.match(activated, /"PortMapper"/)

        const second = yield* start([], "--takeover", "--socket", at("a.sock"), ...tcp)
        assert.deepStrictEqual(yield* first.running.wait({ timeoutMillis: startMillis }), ended)
        assert.strictEqual(second.port, first.port)
        assert.strictEqual(yield* isAsked(second.port), activated)
        for (const name of ["a.sock", "passed.sock"])
          assert.strictEqual((yield* Effect.promise(() => request(at(name), "/Plugin.Activate"))).status, 200)
        assert.isTrue(existsSync(at("portmapper.json")))

        const third = yield* start([], "--takeover", "--socket", at("b.sock"))
        assert.deepStrictEqual(yield* second.running.wait({ timeoutMillis: startMillis }), ended)
        assert.deepStrictEqual(
          ["a.sock", "b.sock", "passed.sock"].filter((name) => existsSync(at(name))),
          ["b.sock", "passed.sock"]
        )
        assert.isFalse(existsSync(at("portmapper.json")), "no process serves any more")
        const closed = yield* host.exec("curl", ["--silent", `https://127.0.0.1:${second.port}/`])
        assert.strictEqual(closed.code, 7, "curl couldn't connect")
        for (const name of ["b.sock", "passed.sock"])
          assert.strictEqual((yield* Effect.promise(() => request(at(name), "/Plugin.Activate"))).status, 200)
        yield* third.running.kill("SIGTERM")
        assert.deepStrictEqual(yield* third.running.wait({ timeoutMillis: startMillis }), ended)

        yield* receiver.waitForLine("STOPPING", { timeoutMillis: startMillis })
        const received = receiver
          .lines("stdout")
          .flatMap((line) => /(MAINPID=\d+|READY|STOPPING)/.exec(line)?.[1] ?? [])
        assert.deepStrictEqual(received, [
          "READY",
          `MAINPID=${second.running.pid}`,
          `MAINPID=${third.running.pid}`,
          "STOPPING"
        ])
      })
  )

  it.live("resets relayed connections after the grace time, and a stop may take as long, too", () =>
    Effect.gen(function* () {
      const { host, c1 } = yield* Lab.make()
      yield* c1.agent.echo({ protocol: "tcp", host: "0.0.0.0", port: 80 })
      const first = yield* Plugin.start(host, { program, startMillis, arguments: ["--grace", "1s"] })
      yield* first.map([web])
      const cut = yield* host.agent.transfer(relayed)
      const second = yield* takeOver(host, first, "--grace", "60s")
      assert.deepStrictEqual(yield* first.process.wait({ timeoutMillis: startMillis }), ended)
      assert.notStrictEqual((yield* cut.progress).state, "open")

      const carried = yield* host.agent.transfer(relayed)
      yield* second.process.kill("SIGTERM")
      // Its successor need not wait for it.
      const third = yield* Plugin.start(host, { folder: second.folder, program, startMillis })
      assert.strictEqual((yield* carried.advance(5, { timeoutMillis: 10_000 })).state, "open")
      assert.isUndefined(second.process.ended())
      yield* carried.stop
      assert.deepStrictEqual(yield* second.process.wait({ timeoutMillis: startMillis }), ended)
      assert.strictEqual((yield* host.agent.tcp({ ...relayed, timeoutMillis: 5000 })).outcome, "answered")
      assert.isTrue(existsSync(third.socket))
    })
  )
})

const halfways: ReadonlyArray<Halfway> = [
  "connected",
  "said hello",
  "was accepted",
  "got a part",
  "got everything"
]

const ended = { code: 0, signal: null }

/** The old process, once it is reactivated; or a new one where the old one had let go already. */
const whoServes = Effect.fnUntraced(function* (host: Namespace, old: Plugin.Plugin) {
  while (true) {
    if (old.process.ended() !== undefined)
      return yield* Plugin.start(host, { folder: old.folder, program, startMillis })
    const asked = yield* Effect.exit(old.map([web]))
    if (Exit.isSuccess(asked) && old.process.ended() === undefined) return old
    yield* Effect.sleep(50)
  }
})

const eventually = <A, E>(look: Effect.Effect<A, E>, wanted: A) =>
  Effect.gen(function* () {
    const deadline = performance.now() + 20_000
    while (performance.now() < deadline && !isDeepStrictEqual(yield* look, wanted)) yield* Effect.sleep(50)
    assert.deepStrictEqual(yield* look, wanted)
  })

const support = (name: string): string => fileURLToPath(new URL(`../support/${name}`, import.meta.url))

describeLab("a plugin whose sockets another process removes", [], () => {
  it.live("listens there again, serves its old clients, and can be taken over", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const plugin = yield* Plugin.start(host)
      yield* plugin.map(["tcp 0.0.0.0:8080 172.31.0.2:80"])
      const client = yield* makeClient(socketAddress(plugin.socket))
      assert.lengthOf(yield* client.listPorts, 1)
      for (const removed of [plugin.socket, handoverOf(plugin)]) rmSync(removed)
      yield* until(Effect.sync(() => [plugin.socket, handoverOf(plugin)].every((path) => existsSync(path))))
      assert.strictEqual((yield* plugin.call("ListPorts", {})).status, 200)
      renameSync(plugin.socket, `${plugin.socket}-moved`)
      yield* until(Effect.sync(() => existsSync(plugin.socket)))
      assert.lengthOf(yield* client.listPorts, 1)
      const { folder } = plugin
      const successor = yield* Plugin.start(host, { folder, arguments: ["--takeover"] })
      assert.deepStrictEqual(yield* plugin.process.wait(), { code: 0, signal: null })
      assert.lengthOf(yield* client.listPorts, 1)
      rmSync(plugin.socket)
      yield* until(Effect.sync(() => existsSync(plugin.socket)))
      assert.strictEqual((yield* successor.call("ListPorts", {})).status, 200)
      yield* successor.process.kill("SIGTERM")
      yield* successor.process.wait()
      assert.isFalse(existsSync(plugin.socket))
    })
  )
})

const handoverOf = ({ folder }: Plugin.Plugin): string => join(folder, "state", "handover.sock")
