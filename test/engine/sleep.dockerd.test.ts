/** Containers of a real Engine that sleep until a client comes, woken by real packets. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { docker, inContainer, outside, servedAt, startEngine, startsOf } from "../lab/Containers.ts"
import type { Dockerd } from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { until } from "../support/until.ts"

const serving = (name: string) => `echo ${name} > /www/index.html; httpd -p 80 -h /www; exec sleep 3600`

/** Creates a container that sleeps, and does not start it. */
const create = (
  dockerd: Dockerd,
  name: string,
  labels: Readonly<Record<string, string>>,
  command = serving(name),
  args: ReadonlyArray<string> = []
) =>
  docker(dockerd, [
    ...["create", "--stop-signal=KILL", `--name=${name}`, "--label=portmapper.wake=on"],
    ...Object.entries(labels).map(([label, value]) => `--label=portmapper.${label}=${value}`),
    ...[...args, "busybox", "/bin/sh", "-c", command]
  ])

/** By container: the state of its ports, and the reason if there is one. */
const states = (plugin: Plugin.Plugin) =>
  Effect.map(Plugin.list(plugin), (all) =>
    Object.fromEntries(
      all
        .filter(({ FrontendIP }) => FrontendIP === "0.0.0.0")
        .map(({ State, Reason, Labels }) => [
          (Labels["portmapper.container"] ?? "").split("/")[0],
          `${State} ${Reason}`.trim()
        ])
    )
  )

/** So many clients at once, as `ANSWER: HOW MANY`; each waits for so long. */
const clients = `
const [, host, port, count, patience] = process.argv
const answers = {}
const one = () => new Promise((done) => {
  let text = ""
  const socket = require("node:net").connect(port, host, () => socket.write("GET / HTTP/1.0\\r\\n\\r\\n"))
  socket.setTimeout(Number(patience), () => socket.destroy(new Error("timeout")))
  socket.on("data", (bytes) => { text += bytes })
  socket.on("error", (error) => { text = error.code ?? error.message })
  socket.on("close", () => { const answer = text.trim().split("\\n").at(-1); answers[answer] = (answers[answer] ?? 0) + 1; done() })
})
Promise.all(Array.from({ length: Number(count) }, one)).then(() => console.log(JSON.stringify(answers)))
`

describeLab("a container that sleeps", ["dockerd", "busybox", "iptables"], () => {
  it.live("is started by the first client, by one start for many, and never against a person's will", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { host, client, dockerd, watch } = yield* startEngine()
        const start = watch({ folder: yield* Plugin.temporaryFolder })
        const ask = (port: number, count = 1, patienceMillis = 30_000) =>
          Effect.map(
            client.check(process.execPath, [
              ...["-e", clients, outside, `${port}`, `${count}`, `${patienceMillis}`]
            ]),
            (text) => JSON.parse(text) as Readonly<Record<string, number>>
          )
        const runs = (name: string) =>
          Effect.map(docker(dockerd, ["inspect", "--format={{.State.Running}}", name]), (text) => text.trim())
        const killed = yield* start
        yield* create(dockerd, "web", { publish: "8080:80" })
        yield* create(dockerd, "guarded", { publish: "8081:80", allow: "192.0.2.0/24" })
        yield* create(dockerd, "broken", { publish: "8082:80" }, "exit 3")
        yield* until(states(killed), (all) => Object.values(all).join() === "asleep,asleep,asleep")
        // Asleep is asleep in the next process, too.
        yield* killed.process.kill("SIGKILL")
        const plugin = yield* start
        assert.deepStrictEqual(yield* states(plugin), { web: "asleep", guarded: "asleep", broken: "asleep" })

        assert.deepStrictEqual(yield* ask(8080, 100), { web: 100 })
        assert.strictEqual((yield* states(plugin))["web"], "live")
        const events = yield* startsOf(dockerd, "web")
        assert.strictEqual(events.trim(), "start")
        // The next ones are the kernel's.
        const table = yield* host.check("nft", ["list", "table", "inet", "portmapper"])
        assert.match(table, /tcp \. 8080 counter packets \d+ bytes \d+ : 172\.17\.0\.2 \. 80/)
        assert.deepStrictEqual(yield* ask(8080), { web: 1 })
        assert.strictEqual(yield* servedAt(host, "127.0.0.1", 8080), "web")

        // No client that is not admitted wakes anything, nor does one that comes while it does not start.
        assert.deepStrictEqual(yield* ask(8081, 1, 500), { timeout: 1 })
        assert.strictEqual(yield* runs("guarded"), "false")
        assert.deepStrictEqual(yield* ask(8082), { ECONNRESET: 1 })
        assert.match((yield* states(plugin))["broken"] ?? "", /^asleep it ended while it was woken$/)

        // A datagram waits for its server, too.
        const health = "--health-cmd=busybox grep -q :0035 /proc/net/udp"
        yield* create(dockerd, "dns", { publish: "5353:53/udp" }, "exec sleep 3600", [
          health,
          "--health-interval=1s"
        ])
        yield* until(states(plugin), (all) => all["dns"] === "asleep")
        const answer = yield* Effect.forkChild(
          client.agent.udp({ host: outside, port: 5353, payload: "name?", timeoutMillis: 20_000 })
        )
        yield* until(runs("dns"), (text) => text === "true")
        yield* (yield* inContainer(dockerd, "dns")).agent.echo({ protocol: "udp", port: 53, who: "dns" })
        assert.strictEqual((yield* Fiber.join(answer)).replies[0]?.who, "dns")

        yield* docker(dockerd, ["stop", "web"])
        yield* until(states(plugin), (all) => all["web"] === undefined)
        assert.deepStrictEqual(yield* ask(8080), { ECONNREFUSED: 1 })
        assert.strictEqual(yield* runs("web"), "false")
      })
    )
  )
})
