/**
 * What a label publishes, beside the same port of a container with `-p` on the same Engine: on which addresses of
 * the host, in which network of the container, and for which clients.
 */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { docker, prepareImages, runContainer, servedAt, servedSoon } from "../lab/Containers.ts"
import * as Dockerd from "../lab/Dockerd.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import * as Plugin from "../lab/Plugin.ts"
import { run } from "../lab/Process.ts"
import { doctor } from "../serve/doctor.ts"

const outside = "10.99.0.1"

const lab = Lab.make({ network: { ipv4: "172.31.0.1/24", containers: {} } })

const watched = Effect.fnUntraced(function* (host: Namespace, args: ReadonlyArray<string> = []) {
  const dockerd = yield* Dockerd.start(host, { bridge: true, iptables: true, args })
  yield* prepareImages(dockerd)
  const plugin = yield* Plugin.start(host, {
    arguments: ["--watch", "--engine", `unix://${dockerd.socket}`]
  })
  return { dockerd, plugin }
})

/** The network of a container. */
const insideOf = Effect.fnUntraced(function* (dockerd: Dockerd.Dockerd, id: string) {
  const pid = (yield* docker(dockerd, ["inspect", "--format={{.State.Pid}}", id])).trim()
  return {
    exec: (command: string, args: ReadonlyArray<string> = []) =>
      run("nsenter", [`--target=${pid}`, "--net", "--", command, ...args])
  }
})

describeLab("a label beside -p", ["dockerd", "busybox", "iptables"], () => {
  it.live("binds where the network's host_binding_ipv4 says", () =>
    Effect.gen(function* () {
      const { host, client } = yield* lab
      const { dockerd } = yield* watched(host, ["--ip=127.0.0.1"])
      yield* docker(dockerd, ["network", "create", "open"])
      yield* docker(dockerd, [
        ...["network", "create", "--opt", "com.docker.network.bridge.host_binding_ipv4=::1"],
        "six"
      ])
      const served: Array<string> = []
      for (const [index, network] of ["bridge", "open", "six"].entries()) {
        const args = [`--network=${network}`]
        const ports = { theirs: 8000 + index, ours: 9000 + index }
        yield* runContainer(dockerd, `${network}-p`, { args: [...args, "-p", `${ports.theirs}:80`] })
        yield* runContainer(dockerd, network, {
          args,
          labels: { "portmapper.publish": `${ports.ours}:80` }
        })
        const local = network === "six" ? "[::1]" : "127.0.0.1"
        assert.strictEqual(yield* servedSoon(host, local, ports.ours, network), network)
        assert.strictEqual(yield* servedAt(host, local, ports.theirs), `${network}-p`)
        const places = [
          [host, "127.0.0.1"],
          [host, "[::1]"],
          [client, outside]
        ] as const
        for (const [from, address] of places)
          for (const [who, port] of Object.entries(ports)) {
            const name = (yield* servedAt(from, address, port)).replace("-p", "")
            served.push(`${network} at ${address} by ${who}: ${name}`)
          }
      }
      const expected = {
        bridge: { "127.0.0.1": "bridge", "[::1]": "nobody", [outside]: "nobody" },
        open: { "127.0.0.1": "open", "[::1]": "open", [outside]: "open" },
        six: { "127.0.0.1": "nobody", "[::1]": "six", [outside]: "nobody" }
      }
      assert.deepStrictEqual(
        served,
        Object.entries(expected).flatMap(([network, places]) =>
          Object.entries(places).flatMap(([address, name]) =>
            ["theirs", "ours"].map((who) => `${network} at ${address} by ${who}: ${name}`)
          )
        )
      )
    })
  )

  it.live("leads to the container in the network of its default route", () =>
    Effect.gen(function* () {
      const { host, client } = yield* lab
      const { dockerd } = yield* watched(host)
      yield* docker(dockerd, ["network", "create", "--internal", "inner"])
      yield* docker(dockerd, ["network", "create", "alpha"])
      yield* docker(dockerd, ["network", "create", "zeta"])
      const pairs = [
        ["inner", "zeta"],
        ["zeta", "alpha"],
        ["alpha", "inner"]
      ] as const
      for (const [index, [first, second]] of pairs.entries()) {
        const ours = `${first}-${second}`
        const theirs = `${ours}-p`
        const args = [`--network=${first}`]
        yield* runContainer(dockerd, theirs, { args: [...args, "-p", `${8000 + index}:80`] })
        yield* runContainer(dockerd, ours, { args, labels: { "portmapper.publish": `${9000 + index}:80` } })
        yield* docker(dockerd, ["network", "connect", second, theirs])
        yield* docker(dockerd, ["network", "connect", second, ours])
        assert.strictEqual(yield* servedAt(client, outside, 8000 + index), theirs)
        assert.strictEqual(yield* servedSoon(client, outside, 9000 + index, ours), ours)
      }
    })
  )

  it.live("is a problem in an internal network, where only the relay serves it", () =>
    Effect.gen(function* () {
      const { host, client } = yield* lab
      const { dockerd, plugin } = yield* watched(host)
      yield* docker(dockerd, ["network", "create", "--internal", "inner"])
      const args = ["--network=inner"]
      yield* runContainer(dockerd, "theirs", { args: [...args, "-p", "8000:80"] })
      yield* runContainer(dockerd, "ours", { args, labels: { "portmapper.publish": "9000:80" } })
      yield* runContainer(dockerd, "relayed", {
        args,
        labels: { "portmapper.publish": "9001:80", "portmapper.mode": "proxy" }
      })
      assert.strictEqual(yield* servedSoon(client, outside, 9001, "relayed"), "relayed")
      assert.strictEqual(yield* servedAt(client, outside, 8000), "nobody")
      assert.strictEqual(yield* servedAt(client, outside, 9000), "nobody")
      yield* plugin.process.waitForLine("ours: not published: its network inner is internal")
      const { body } = yield* plugin.call("ListPorts", {})
      const { Mappings } = JSON.parse(body) as { readonly Mappings: ReadonlyArray<Listed> }
      const states = Mappings.map(({ State, Labels }) =>
        [Labels["portmapper.container"]?.split("/")[0], State].join(" ")
      )
      assert.deepStrictEqual([...new Set(states)].sort(), ["ours conflicted", "relayed live"])
    })
  )

  it.live("is reached by the container itself, and by the host from any of its addresses", () =>
    Effect.gen(function* () {
      const { host, client } = yield* Lab.make({
        network: { ipv4: "172.31.0.1/24", containers: {} },
        bridgeNetfilter: true
      })
      const { dockerd } = yield* watched(host)
      const ports = { theirs: 8000, ours: 9000 }
      for (const [name, port] of Object.entries(ports)) {
        const published =
          name === "ours"
            ? { labels: { "portmapper.publish": `${port}:80` } }
            : { args: ["-p", `${port}:80`] }
        const id = yield* runContainer(dockerd, name, published)
        assert.strictEqual(yield* servedSoon(client, outside, port, name), name)
        const itself = yield* insideOf(dockerd, id)
        for (const address of [outside, "172.31.0.1", "172.17.0.1"])
          assert.strictEqual(yield* servedAt(itself, address, port), name, `itself at ${address}`)
        for (const sourceAddress of [outside, "172.17.0.1", "127.0.0.2"]) {
          const payload = "GET / HTTP/1.0\r\n\r"
          const { answer } = yield* host.agent.tcp({ host: "127.0.0.1", port, payload, sourceAddress })
          assert.match(answer?.text ?? "", / 200 OK/, `${name} from ${sourceAddress}`)
        }
      }
    })
  )

  it.live("is reached by containers of every network, at every address of the host", () =>
    Effect.gen(function* () {
      const { host, client } = yield* lab
      const { dockerd, plugin } = yield* watched(host)
      yield* docker(dockerd, ["network", "create", "--subnet=172.20.0.0/16", "front"])
      yield* docker(dockerd, ["network", "create", "--subnet=172.21.0.0/16", "back"])
      yield* runContainer(dockerd, "theirs", { args: ["--network=front", "-p", "8000:80"] })
      yield* runContainer(dockerd, "ours", {
        args: ["--network=front"],
        labels: { "portmapper.publish": "9000:80" }
      })
      assert.strictEqual(yield* servedSoon(client, outside, 9000, "ours"), "ours")
      assert.deepStrictEqual((yield* doctor(host, plugin.socket)).drops, [])
      for (const network of ["front", "back", "bridge"]) {
        const id = yield* runContainer(dockerd, `from-${network}`, { args: [`--network=${network}`] })
        const inside = yield* insideOf(dockerd, id)
        for (const address of [outside, "172.17.0.1", "172.20.0.1", "172.21.0.1"]) {
          assert.strictEqual(yield* servedAt(inside, address, 8000), "theirs", `${network} to ${address}`)
          assert.strictEqual(yield* servedAt(inside, address, 9000), "ours", `${network} to ${address}`)
        }
        // The networks stay isolated where nothing is published.
        const direct = network === "front" ? "ours" : "nobody"
        const { stdout } = yield* dockerd.docker([
          "inspect",
          "--format={{.NetworkSettings.Networks.front.IPAddress}}",
          "ours"
        ])
        assert.strictEqual(yield* servedAt(inside, stdout.trim(), 80), direct)
      }
    })
  )
})

interface Listed {
  readonly State: string
  readonly Labels: Readonly<Record<string, string>>
}
