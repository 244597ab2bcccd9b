/** Ports shared by several containers of a real Engine, by labels alone, reached from outside by real packets. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import {
  docker,
  inContainer,
  leaveContainer,
  outside,
  pidOf,
  runContainer,
  servedAt,
  startEngine
} from "../lab/Containers.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Plugin from "../lab/Plugin.ts"
import { patienceMillis } from "../lab/patience.ts"
import { rate, tally } from "../lab/Tally.ts"
import { until } from "../support/until.ts"

const project = (name: string, share = "web", more: Readonly<Record<string, string>> = {}) => ({
  "com.docker.compose.project": name,
  "portmapper.publish": "8080:80",
  "portmapper.share": share,
  ...more
})

const listed = (plugin: Plugin.Plugin) =>
  Effect.map(Plugin.list(plugin), (all) => all.filter(({ FrontendIP }) => FrontendIP === "0.0.0.0"))

describeLab("a port shared by containers", ["dockerd", "busybox", "iptables"], () => {
  it.live("leads to all of them evenly, and loses none of them to another project", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const greedy = { "portmapper.share": "web" }
        const { host, client, dockerd, watch } = yield* startEngine({ greedy })
        yield* host.check("iptables", ["-P", "FORWARD", "DROP"])
        const plugin = yield* watch()
        for (const name of ["shop-web-1", "shop-web-2", "shop-web-3"])
          yield* leaveContainer(dockerd, name, { labels: project("shop") })
        const services = Effect.map(listed(plugin), (all) =>
          all.map(({ Service, State }) => `${Service} ${State}`)
        )
        yield* until(services, (all) => all.length === 3)
        assert.deepStrictEqual(
          yield* services,
          Array.from({ length: 3 }, () => "shop/web live")
        )
        const counts = yield* tally(client, 8080, 600)
        assert.hasAllKeys(counts, ["shop-web-1", "shop-web-2", "shop-web-3"])
        for (const [name, count] of Object.entries(counts)) assert.isAbove(count, 120, name)
        // From the host, by the relay.
        assert.match(yield* servedAt(host, "127.0.0.1", 8080), /^shop-web-/)

        // Another project, an image's label and a container without the label are a conflict as ever.
        for (const [name, options] of [
          ["other-web-1", { labels: project("other") }],
          ["plain", { labels: { "portmapper.publish": "8080:80" } }],
          ["pulled", { image: "greedy", labels: { "portmapper.publish": "8080:80" } }],
          ["stricter", { labels: project("shop", "web", { "portmapper.allow": "10.0.0.0/8" }) }]
        ] as const)
          yield* runContainer(dockerd, name, options)
        const refused = Effect.map(listed(plugin), (all) =>
          all
            .flatMap(({ State, Labels }) =>
              State === "conflicted" ? [Labels["portmapper.error"] ?? ""] : []
            )
            .sort()
        )
        yield* until(refused, (all) => all.length === 4)
        for (const [index, why] of [
          /a backend of service shop\/web needs no portmapper\.allow, like the others/,
          /port is already allocated/,
          /port is already allocated/,
          /port is already allocated/
        ].entries())
          assert.match((yield* refused)[index] ?? "", why)
        assert.hasAllKeys(yield* tally(client, 8080, 100), ["shop-web-1", "shop-web-2", "shop-web-3"])

        // A paused backend would let clients wait.
        yield* docker(dockerd, ["pause", "shop-web-2"])
        const stateOf = Effect.map(
          listed(plugin),
          (all) => all.find(({ Container }) => Container.startsWith("shop-web-2/"))?.State
        )
        yield* until(stateOf, (state) => state === "waiting")
        assert.hasAllKeys(yield* tally(client, 8080, 100), ["shop-web-1", "shop-web-3"])
        yield* docker(dockerd, ["unpause", "shop-web-2"])
        yield* until(stateOf, (state) => state === "live")

        // A backend that ends is gone from the next connections on; the last one takes the port with it.
        yield* docker(dockerd, ["rm", "--force", "shop-web-2"])
        yield* until(services, (all) => all.filter((text) => text === "shop/web live").length === 2)
        assert.hasAllKeys(yield* tally(client, 8080, 100), ["shop-web-1", "shop-web-3"])
        yield* docker(dockerd, ["rm", "--force", "shop-web-1", "shop-web-3"])
        yield* until(
          tally(client, 8080, 1),
          (names) => names["shop-web-1"] === undefined && names["shop-web-3"] === undefined
        )
      })
    )
  )

  it.live("gives every start the same slots, and keeps the clients of a source at their container", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { host, client, dockerd, watch } = yield* startEngine()
        const start = watch({ folder: yield* Plugin.temporaryFolder })
        const slots = Effect.map(host.check("nft", ["list", "table", "inet", "portmapper"]), (text) =>
          [...text.matchAll(/tcp \. 8080 \. \d+ counter packets \d+ bytes \d+ : \S+/g)]
            .map(([element]) => element.replace(/ counter packets \d+ bytes \d+/, ""))
            .sort()
        )
        const [before, own] = yield* Effect.scoped(
          Effect.gen(function* () {
            const plugin = yield* start
            for (const name of ["a-1", "a-2", "a-3"])
              yield* leaveContainer(dockerd, name, {
                labels: {
                  "portmapper.publish": "8080:80",
                  "portmapper.share": "web",
                  "portmapper.balance": "source"
                }
              })
            yield* until(listed(plugin), (all) => all.length === 3)
            const own = Object.keys(yield* tally(client, 8080, 50))
            assert.strictEqual(own.length, 1)
            return [yield* slots, own] as const
          })
        )
        assert.strictEqual(before.length, 64)
        const again = yield* start
        assert.deepStrictEqual(yield* slots, before)
        assert.deepStrictEqual(Object.keys(yield* tally(client, 8080, 20)), own)
        yield* again.process.kill("SIGKILL")
        yield* start
        assert.deepStrictEqual(yield* slots, before)
        assert.deepStrictEqual(Object.keys(yield* tally(client, 8080, 20)), own)
      })
    )
  )

  it.live("refuses no connection while its containers are replaced one by one", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { host, client, dockerd, watch } = yield* startEngine()
        yield* watch()
        // It accepts for a second after the signal, as servers do that shut down gracefully. Where httpd's nine clients
        // wait already, the kernel drops the next one's SYN, which comes again a second later: too late here.
        const graceful = Effect.fnUntraced(function* (name: string) {
          yield* docker(dockerd, [
            ...["run", "--detach", "--stop-signal=TERM", `--name=${name}`],
            ...["--label=portmapper.publish=8080:80", "--label=portmapper.share=web"],
            ...["--label=com.docker.compose.project=shop", "--health-interval=1s"],
            ...["--health-cmd=busybox grep -q :0050 /proc/net/tcp", "busybox", "/bin/sh", "-c"],
            'trap "sleep 1; exit" TERM; sleep 3600 & wait'
          ])
          const pid = yield* pidOf(dockerd, name)
          const inside = [`--target=${pid}`, "--net", "--pid", "--"]
          yield* host.spawn("nsenter", [...inside, process.execPath, "-e", serving, name])
        })
        const names = ["web-1", "web-2", "web-3"]
        for (const name of names) yield* graceful(name)
        yield* until(tally(client, 8080, 60), (counts) => names.every((name) => (counts[name] ?? 0) > 0))
        const steady = yield* Effect.forkChild(rate(client, 8080, 300, 15))
        yield* Effect.sleep("1 second")
        for (const name of names) {
          yield* docker(dockerd, ["stop", name])
          yield* docker(dockerd, ["rm", name])
          yield* graceful(`${name}-new`)
          yield* until(tally(client, 8080, 40), (counts) => (counts[`${name}-new`] ?? 0) > 0)
        }
        const { error = 0, ...answered } = yield* Fiber.join(steady)
        assert.strictEqual(error, 0)
        assert.isAbove(
          Object.values(answered).reduce((sum, count) => sum + count, 0),
          1000
        )
        yield* until(tally(client, 8080, 60), (counts) =>
          names.every((name) => (counts[name] ?? 0) === 0 && (counts[`${name}-new`] ?? 0) > 0)
        )
      })
    )
  )

  it.live("refuses no connection while servers that close at once are replaced, each drained before", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { client, dockerd, watch } = yield* startEngine()
        const plugin = yield* watch()
        const names = ["web-1", "web-2", "web-3"]
        for (const name of names) yield* leaveContainer(dockerd, name, { labels: project("shop") })
        yield* until(tally(client, 8080, 60), (counts) => names.every((name) => (counts[name] ?? 0) > 0))
        const steady = yield* Effect.forkChild(rate(client, 8080, 300, 12))
        for (const name of names) {
          const { status, body } = yield* plugin.call("Drain", { Backend: name })
          assert.strictEqual(status, 200, body)
          yield* until(openTo(plugin, name), (count) => count === 0)
          yield* docker(dockerd, ["rm", "--force", name])
          // It begins to listen after it runs.
          yield* leaveContainer(dockerd, `${name}-new`, {
            labels: project("shop"),
            args: ["--health-cmd=wget -q -O /dev/null http://127.0.0.1/", "--health-interval=1s"]
          })
          yield* until(tally(client, 8080, 40), (counts) => (counts[`${name}-new`] ?? 0) > 0)
        }
        const { error = 0, ...answered } = yield* Fiber.join(steady)
        assert.strictEqual(error, 0, JSON.stringify(answered))
        assert.isAbove(
          Object.values(answered).reduce((sum, count) => sum + count, 0),
          1000
        )
        // What was killed fails with its own connections; once the Engine has said so, new ones go elsewhere.
        yield* docker(dockerd, ["kill", "--signal=KILL", "web-1-new"])
        yield* until(listed(plugin), (all) => all.length === 2)
        assert.hasAllKeys(yield* tally(client, 8080, 200), ["web-2-new", "web-3-new"])
        const unknown = yield* plugin.call("Undrain", { Backend: "web-1" })
        assert.strictEqual(unknown.status, 500)
        assert.match(unknown.body, /nothing leads to web-1; there are 172\.17\.0\.\d+ \(web-2-new\), /)
      })
    )
  )

  it.live("loses no datagram of new flows in a redeploy, and lets clients wait for a healthy backend", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { host, client, dockerd, watch } = yield* startEngine()
        const plugin = yield* watch()
        const health = (command: string) => [`--health-cmd=${command}`, "--health-interval=1s"]
        const resolver = Effect.fnUntraced(function* (name: string) {
          yield* leaveContainer(dockerd, name, {
            labels: project("dns", "dns", { "portmapper.publish": "5353:53/udp" }),
            args: health("busybox grep -q :0035 /proc/net/udp")
          })
          yield* (yield* inContainer(dockerd, name)).agent.echo({ protocol: "udp", port: 53, who: name })
        })
        // A flow of its own each time: one that began before a drain goes on to the drained backend.
        let sourcePort = 1024
        const ask = Effect.suspend(() =>
          client.agent.udp({ host: outside, port: 5353, payload: "name?", sourcePort: sourcePort++ })
        )
        const answeredBy = (names: ReadonlyArray<string>) => {
          const seen = new Set<string | undefined>()
          return until(
            Effect.map(ask, ({ replies }) => seen.add(replies[0]?.who)),
            () => names.every((name) => seen.has(name))
          )
        }
        yield* resolver("dns-1")
        yield* resolver("dns-2")
        yield* answeredBy(["dns-1", "dns-2"])
        const outcomes: Array<string> = []
        const steady = yield* Effect.forkChild(
          Effect.forever(Effect.map(ask, ({ outcome }) => outcomes.push(outcome)))
        )
        for (const name of ["dns-1", "dns-2"]) {
          yield* resolver(`${name}-new`)
          yield* answeredBy([`${name}-new`])
          yield* plugin.call("Drain", { Backend: name })
          // The flow of that time is over after one more.
          const before = outcomes.length
          yield* until(
            Effect.sync(() => outcomes.length),
            (count) => count > before + 1
          )
          yield* docker(dockerd, ["rm", "--force", name])
        }
        yield* Fiber.interrupt(steady)
        assert.deepStrictEqual([...new Set(outcomes)], ["answered"])

        // Nobody is ready: refused at once, or held for as long as the label says.
        yield* leaveContainer(dockerd, "cold", {
          labels: { "portmapper.publish": "8081:80", "portmapper.health": "follow" },
          args: health("cat /ready")
        })
        yield* leaveContainer(dockerd, "slow", {
          labels: { "portmapper.publish": "8082:80", "portmapper.wait-healthy": "5m" },
          args: health("cat /ready")
        })
        const waiting = Effect.map(listed(plugin), (all) => all.filter(({ State }) => State === "waiting"))
        yield* until(waiting, (all) => all.length === 2)
        for (const from of [client, host]) {
          const { outcome } = yield* from.agent.tcp({ host: outside, port: 8081 })
          assert.include(["refused", "reset"], outcome)
        }
        const asked = yield* Effect.forkChild(
          client.agent.tcp({
            ...{ host: outside, port: 8082, payload: "GET / HTTP/1.0\r\n" },
            timeoutMillis: patienceMillis
          })
        )
        yield* docker(dockerd, ["exec", "slow", "sh", "-c", "echo > /ready"])
        const { outcome, answer } = yield* Fiber.join(asked)
        assert.deepStrictEqual([outcome, answer?.text.trim()], ["answered", "HTTP/1.1 200 OK"])
      })
    )
  )
})

/** Answers each client by the name, and lets as many wait as come while it gets no processor. Ends with its container. */
const serving = `
require("node:net")
  .createServer((socket) => socket.on("error", () => {}).once("data", () => socket.end(process.argv[1])))
  .listen({ host: "0.0.0.0", port: 80, backlog: 1024 })
`

/** How many connections are open to a drained container. */
const openTo = (plugin: Plugin.Plugin, name: string) =>
  Effect.map(listed(plugin), (all) => all.find(({ Container }) => Container.startsWith(`${name}/`))?.Open)
