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
})
