import { readdirSync, readFileSync } from "node:fs"
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"
import { until } from "../support/until.ts"
import { describeLab } from "./describeLab.ts"
import * as Lab from "./Lab.ts"
import type { Namespace } from "./Namespace.ts"
import { silenceMillis } from "./patience.ts"

const left = (prefix: string) => readdirSync("/run/netns").filter((name) => name.startsWith(prefix))

/** A process that was killed but not yet reaped does not count as alive. */
const alive = (pid: number) => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"))
  } catch {
    return false
  }
}

/** Silently drops traffic to a port of the host. */
const drop = (namespace: Namespace, port: number) =>
  namespace.check("nft", ["-f", "-"], {
    input: `table inet t { chain c { type filter hook input priority 0; th dport ${port} drop; }; }`
  })

const silence = { timeoutMillis: silenceMillis }

describeLab("a lab", [], () => {
  it.live("distinguishes refused, silent, reset, closed and unreachable, with or without a handshake", () =>
    Effect.gen(function* () {
      const { client, host } = yield* Lab.make()
      yield* drop(host, 81)
      yield* host.agent.hold({ protocol: "tcp", port: 82 })
      const tcp = (port: number, address = "10.99.0.1") =>
        Effect.map(
          client.agent.tcp({ host: address, port, ...(port === 81 || port === 82 ? silence : {}) }),
          ({ connected, outcome }) => `${outcome} ${connected}`
        )
      assert.strictEqual(yield* tcp(80), "refused false")
      assert.strictEqual(yield* tcp(80, "fd99::1"), "refused false")
      assert.strictEqual(yield* tcp(81), "timeout false")
      assert.strictEqual(yield* tcp(82), "timeout true")
      const server = (how: string) =>
        Effect.gen(function* () {
          const script = `require("net").createServer(s => s.once("data", () => s.${how}())).listen(83, () => console.log("up"))`
          const running = yield* host.spawn(process.execPath, ["-e", script])
          yield* running.waitForLine("up")
          return yield* tcp(83)
        }).pipe(Effect.scoped)
      assert.strictEqual(yield* server("end"), "closed true")
      assert.strictEqual(yield* server("resetAndDestroy"), "reset true")
      const udp = (port: number) =>
        Effect.map(
          client.agent.udp({ host: "10.99.0.1", port, ...(port === 81 ? silence : {}) }),
          ({ outcome }) => outcome
        )
      assert.strictEqual(yield* udp(80), "refused")
      assert.strictEqual(yield* udp(81), "timeout")
      yield* client.sh("ip route del default")
      assert.strictEqual(yield* tcp(80, "172.31.0.2"), "unreachable false")
      assert.strictEqual((yield* client.agent.udp({ host: "172.31.0.2", port: 80 })).outcome, "unreachable")
    })
  )

  it.live(
    "has a second client, further networks and addresses, and a container without IPv6 beyond its link",
    () =>
      Effect.gen(function* () {
        const lab = yield* Lab.make({
          secondClient: true,
          hostAddresses: ["10.99.0.9/24", "fd99::9/64"],
          clientAddresses: ["10.99.0.22/24"],
          hostSysctls: { "net.ipv4.ip_local_port_range": "40000 40010" },
          networks: [
            { ipv4: "172.30.6.1/24", containers: { c3: { ipv4: "172.30.6.2" } } },
            {
              ipv4: "172.30.7.1/24",
              ipv6: "fd67::1/64",
              containers: { c4: { ipv4: "172.30.7.2", ipv6: "fd67::2", noDefaultIpv6: true } }
            }
          ]
        })
        const c4 = lab.get("c4")
        yield* lab.get("c3").agent.echo({ protocol: "tcp", port: 80 })
        yield* c4.agent.echo({ protocol: "udp", host: "::", port: 80 })
        const far = yield* lab.get("client2").agent.tcp({ host: "172.30.6.2", port: 80 })
        assert.strictEqual(far.answer?.seen?.address, "10.98.0.2")
        const other = yield* lab.client.agent.tcp({
          host: "172.30.6.2",
          port: 80,
          sourceAddress: "10.99.0.22"
        })
        assert.strictEqual(other.answer?.seen?.address, "10.99.0.22")
        const near = { host: "fd67::2", port: 80 }
        assert.strictEqual((yield* lab.host.agent.udp(near)).outcome, "answered")
        assert.strictEqual((yield* lab.client.agent.udp({ ...near, ...silence })).outcome, "timeout")
        const echo = yield* lab.host.agent.echo({ protocol: "tcp", host: "fd99::9" })
        assert.isTrue(echo.port >= 40000 && echo.port <= 40010, `${echo.port}`)
        assert.throws(() => lab.get("c9"), "Lab.get: no c9 here, only host, client, client2, c1, c2, c3, c4")
      })
  )

  it.live("runs commands and processes inside, and reads their output", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      assert.deepStrictEqual(yield* host.exec("sh", ["-c", "cat; echo no >&2; exit 3"], { input: "yes" }), {
        code: 3,
        signal: null,
        stdout: "yes",
        stderr: "no\n"
      })
      assert.match((yield* Effect.flip(host.sh("echo no >&2; false"))).message, /ended with 1: no$/)
      assert.match(
        (yield* Effect.flip(host.exec("sleep", ["9"], { timeoutMillis: 50 }))).message,
        /within 50 ms/
      )
      assert.notStrictEqual((yield* host.exec("no-such-command")).code, 0)
      const running = yield* host.spawn("sh", ["-c", "echo one; echo two >&2; read x; echo got $x; sleep 9"])
      assert.strictEqual(yield* running.waitForLine(/^t/, { stream: "stderr" }), "two")
      yield* running.write("three\n")
      assert.strictEqual(yield* running.waitForLine("got"), "got three")
      assert.deepStrictEqual(running.lines("stdout"), ["one", "got three"])
      assert.strictEqual(yield* host.sh(`ip netns identify ${running.pid}`), `${host.name}\n`)
      assert.isTrue(yield* running.kill("SIGKILL"))
      assert.deepStrictEqual(yield* running.wait(), { code: null, signal: "SIGKILL" })
      assert.match(
        (yield* Effect.flip(running.waitForLine("more"))).message,
        /ended with SIGKILL before a line/
      )
    })
  )

  it.live("ends a process with its scope, even one that ignores SIGTERM", () =>
    Effect.gen(function* () {
      const { host } = yield* Lab.make()
      const stubborn = yield* Effect.scoped(
        Effect.gen(function* () {
          const script = "trap '' TERM; echo up; while :; do sleep 0.1; done"
          const running = yield* host.spawn("sh", ["-c", script], { graceMillis: 100 })
          yield* running.waitForLine("up")
          return running
        })
      )
      assert.deepStrictEqual(stubborn.ended(), { code: null, signal: "SIGKILL" })
    })
  )

  it.live(
    "leaves no namespace and no process behind: after success, failure, interruption, a partial set-up",
    () =>
      Effect.gen(function* () {
        const prefixes: Array<string> = []
        const pids: Array<number> = []
        const used = Effect.gen(function* () {
          const lab = yield* Lab.make()
          prefixes.push(lab.prefix)
          pids.push(yield* lab.c1.agent.start)
          pids.push(Number(yield* lab.host.sh("setsid sleep 60 >/dev/null 2>&1 & echo $!")))
          assert.lengthOf(left(lab.prefix), 4)
        })
        yield* Effect.scoped(used)
        yield* Effect.exit(Effect.scoped(Effect.andThen(used, Effect.fail("on purpose"))))
        const fiber = yield* Effect.forkChild(Effect.scoped(Effect.andThen(used, Effect.never)))
        while (pids.length < 6) yield* Effect.sleep(10)
        yield* Fiber.interrupt(fiber)
        const half = yield* Effect.exit(Effect.scoped(Lab.make({ hostAddresses: ["nonsense"] })))
        assert.isTrue(Exit.isFailure(half))
        prefixes.push((prefixes[0] ?? "").replace(/\d+-$/, ""))
        assert.deepStrictEqual(prefixes.flatMap(left), [])
        yield* until(Effect.sync(() => !pids.some(alive)))
      })
  )
})
