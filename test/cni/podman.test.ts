/** A real container that Podman runs with its CNI backend, published by our plugin. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Cni from "../lab/Cni.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import * as Podman from "../lab/Podman.ts"
import type { Output } from "../lab/Process.ts"

const done = (output: Output) => assert.strictEqual(output.code, 0, output.stderr + output.stdout)

/** The body from a web server, or nothing; retries while the server starts. */
const get = (from: Namespace, url: string) =>
  Effect.map(from.exec(process.execPath, ["-e", asking, url], { label: `GET ${url}` }), ({ stdout }) =>
    stdout.trim()
  )

const asking = `
const ask = async (times) => {
  try {
    return await (await fetch(process.argv[1], { signal: AbortSignal.timeout(2000) })).text()
  } catch {
    if (times === 1) return ""
    await new Promise((resolve) => setTimeout(resolve, 200))
    return ask(times - 1)
  }
}
console.log(await ask(5))
`

/** The state of each mapping, with its network. */
const statesOf = (plugin: Plugin.Plugin) =>
  Effect.map(plugin.call("ListPorts", {}), ({ body }) => {
    const { Mappings } = JSON.parse(body) as {
      readonly Mappings: ReadonlyArray<{
        readonly State: string
        readonly Labels: Readonly<Record<string, string>>
      }>
    }
    return Mappings.map(({ State, Labels }) => `${State} ${Labels["portmapper.cni-network"]}`).sort()
  })

describeLab("podman with its CNI backend", ["go", "cni", "podman", "busybox"], () => {
  it.live("runs containers that a running plugin publishes, where podman leaves the ports to it", () =>
    Effect.gen(function* () {
      const { client, host } = yield* Lab.make({ network: { containers: {} } })
      const network = yield* Cni.make(host)
      yield* Plugin.start(host, { folder: network.folder })
      const { podman, web } = yield* Podman.start(host, network, { portReservation: false })
      done(yield* web("one", "8080:80"))
      done(yield* web("two", "8081:80"))
      assert.strictEqual(yield* get(client, "http://10.99.0.1:8080/"), "one")
      assert.strictEqual(yield* get(client, "http://10.99.0.1:8081/"), "two")
      assert.strictEqual(yield* get(host, "http://127.0.0.1:8080/"), "one")
      const refused = yield* web("three", "8080:80")
      assert.notStrictEqual(refused.code, 0)
      assert.match(refused.stderr, /port is already allocated/)
      done(yield* podman("restart", "--time=0", "one"))
      assert.strictEqual(yield* get(client, "http://10.99.0.1:8080/"), "one")
      done(yield* podman("rm", "--force", "--time=0", "one", "two", "three"))
      assert.deepStrictEqual(yield* contents(host), {})
      // Podman asks for its versions without the configuration, which names the socket.
      assert.deepStrictEqual([...new Set(yield* network.byNode)], ["VERSION"])
    })
  )

  /** The steps, and the answers after each: to a client outside, and to the host. */
  const acrossNetworks = Effect.fnUntraced(function* (publisher: "ours" | "portmap") {
    const { client, host } = yield* Lab.make({ network: { containers: {} } })
    const network = yield* Cni.make(host)
    network.add("red", "172.30.1.0/24", publisher)
    network.add("blue", "172.30.2.0/24", publisher)
    const start =
      publisher === "ours" ? Plugin.start(host, { folder: network.folder }) : Effect.succeed(undefined)
    const plugin = yield* start
    const { podman, web } = yield* Podman.start(host, network, { portReservation: false })
    const seen: Array<string> = []
    const step = Effect.fnUntraced(function* (name: string, run: Effect.Effect<Output, unknown>) {
      const { code, stderr } = yield* run
      const answers = [
        yield* get(client, "http://10.99.0.1:8080/"),
        yield* get(host, "http://10.99.0.1:8080/")
      ]
      seen.push(`${name}: ${code === 0 ? answers.map((body) => body || "-").join(" ") : stderr}`)
    })
    yield* step("red,blue", web("one", "8080:80", "red,blue"))
    const states = plugin === undefined ? [] : yield* statesOf(plugin)
    if (plugin !== undefined) {
      yield* plugin.process.kill("SIGKILL")
      yield* plugin.process.wait()
      yield* start
    }
    yield* step("without red", podman("network", "disconnect", "red", "one"))
    yield* step("red again", podman("network", "connect", "red", "one"))
    yield* step("without blue", podman("network", "disconnect", "blue", "one"))
    yield* step("removed", podman("rm", "--force", "--time=0", "one"))
    yield* step("red", web("two", "8080:80", "red"))
    yield* step("and blue", podman("network", "connect", "blue", "two"))
    yield* step("without blue", podman("network", "disconnect", "blue", "two"))
    yield* step("and blue", podman("network", "connect", "blue", "two"))
    yield* step("without red", podman("network", "disconnect", "red", "two"))
    yield* step("removed", podman("rm", "--force", "--time=0", "two"))
    return { seen, states, left: yield* contents(host) }
  })

  it.live("reaches a container in two networks at its port, as with portmap", () =>
    Effect.gen(function* () {
      const reference = yield* Effect.scoped(acrossNetworks("portmap"))
      const ours = yield* Effect.scoped(acrossNetworks("ours"))
      assert.deepStrictEqual(ours.seen, reference.seen)
      assert.deepStrictEqual(
        ours.seen.filter((line) => !/: (one one|two two)$/.test(line)),
        ["removed: - -", "removed: - -"]
      )
      // Podman attaches them in an order of its own.
      assert.include(["live blue, standby red", "live red, standby blue"], ours.states.join(", "))
      assert.deepStrictEqual(ours.left, {})
    })
  )
})
