/** Real packets to containers that `cnitool` attaches, with Debian's bridge and our plugin after it. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Cni from "../lab/Cni.ts"
import { describeLab } from "../lab/describeLab.ts"
import * as Lab from "../lab/Lab.ts"
import type { Namespace } from "../lab/Namespace.ts"
import { contents } from "../lab/Nft.ts"
import * as Plugin from "../lab/Plugin.ts"
import { check, type Output } from "../lab/Process.ts"

const web = { hostPort: 8080, containerPort: 80, protocol: "tcp" }
const dns = { hostPort: 5353, containerPort: 53, protocol: "udp" }

const done = (output: Output) => assert.strictEqual(output.code, 0, output.stderr + output.stdout)

/** `answered p1`, or the outcome instead. */
const ask = (from: Namespace, host: string, { hostPort: port, protocol } = web) =>
  protocol === "tcp"
    ? Effect.map(from.agent.tcp({ host, port, close: "reset" }), ({ answer, outcome }) =>
        answer === undefined ? outcome : `${outcome} ${answer.who}`
      )
    : Effect.map(from.agent.udp({ host, port }), ({ outcome, replies: [reply] }) =>
        reply === undefined ? outcome : `${outcome} ${reply.who}`
      )

const serving = (pod: Namespace) =>
  Effect.forEach(["0.0.0.0", "::"], (host) =>
    Effect.andThen(
      pod.agent.echo({ protocol: "tcp", host, port: 80 }),
      pod.agent.echo({ protocol: "udp", host, port: 53 })
    )
  )

const setUp = Effect.gen(function* () {
  const lab = yield* Lab.make({ network: { containers: {} }, bridgeNetfilter: true })
  const network = yield* Cni.make(lab.host)
  const p1 = yield* Cni.pod(lab.prefix, "p1")
  const p2 = yield* Cni.pod(lab.prefix, "p2")
  return { host: lab.host, client: lab.client, network, p1, p2 }
})

describeLab("cnitool with Debian's bridge", ["go", "cni"], () => {
  it.live("publishes through a running plugin: ADD, CHECK, a conflict, DEL", () =>
    Effect.gen(function* () {
      const { client, host, network, p1, p2 } = yield* setUp
      const plugin = yield* Plugin.start(host, { folder: network.folder })
      const added = yield* network.tool("add", p1, [web, dns])
      done(added)
      const { ips } = JSON.parse(added.stdout)
      assert.deepStrictEqual(
        ips.map(({ address }: { readonly address: string }) => address),
        ["172.29.0.2/24", "fd55::2/64"]
      )
      yield* serving(p1)
      for (const address of ["10.99.0.1", "fd99::1"])
        for (const port of [web, dns]) assert.strictEqual(yield* ask(client, address, port), "answered p1")
      assert.strictEqual(yield* ask(host, "127.0.0.1"), "answered p1")
      for (const address of ["10.99.0.1", "fd99::1", "172.29.0.1", "fd55::1"])
        for (const port of [web, dns])
          assert.strictEqual(yield* ask(p1, address, port), "answered p1", address)
      done(yield* network.tool("check", p1, [web, dns]))

      const refused = yield* network.tool("add", p2, [{ ...web, hostPort: 8000 }, web])
      assert.strictEqual(refused.code, 1)
      assert.match(
        refused.stderr,
        /port is already allocated \(held by cni:cnitool-\w+\/eth0 for 172\.29\.0\.2 port 80/
      )
      assert.strictEqual(yield* ask(client, "10.99.0.1", { ...web, hostPort: 8000 }), "refused")
      done(yield* network.tool("del", p2, [{ ...web, hostPort: 8000 }, web]))
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "answered p1")

      const { body } = yield* plugin.call("ListPorts", {})
      yield* plugin.call("UnmapPorts", { PortBindings: JSON.parse(body).Mappings.slice(0, 1) })
      const broken = yield* network.tool("check", p1, [web, dns])
      assert.strictEqual(broken.code, 1)
      assert.match(broken.stderr, /ports are not published as they should be; .* is not published/)

      done(yield* network.tool("del", p1, [web, dns]))
      done(yield* network.tool("del", p1, [web, dns]))
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "refused")
      assert.deepStrictEqual(yield* contents(host), {})
      assert.deepStrictEqual(yield* network.byNode, [])
    })
  )

  it.live("lets an attachment give way whose namespace is gone, and no other", () =>
    Effect.gen(function* () {
      const { client, host, network, p1, p2 } = yield* setUp
      yield* Plugin.start(host, { folder: network.folder })
      done(yield* network.tool("add", p1, [web]))
      const refused = yield* network.tool("add", p2, [web])
      assert.match(refused.stderr, /port is already allocated/)
      done(yield* network.tool("del", p2, [web]))
      yield* check("ip", ["netns", "del", p1.name])
      done(yield* network.tool("add", p2, [web]))
      yield* serving(p2)
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "answered p2")
      // The late DEL frees nothing of the other's.
      done(yield* network.tool("del", p1, [web]))
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "answered p2")
      yield* check("ip", ["netns", "add", p1.name])
      done(yield* network.tool("del", p2, [web]))
      assert.deepStrictEqual(yield* contents(host), {})
    })
  )

  it.live("frees by GC the ports of no valid attachment, and reports by STATUS whether it can work", () =>
    Effect.gen(function* () {
      const { client, host, network, p1, p2 } = yield* setUp
      yield* Plugin.start(host, { folder: network.folder })
      done(yield* network.tool("status", p1))
      const other = { ...web, hostPort: 8081 }
      done(yield* network.tool("add", p1, [web]))
      done(yield* network.tool("add", p2, [other]))
      yield* Effect.forEach([p1, p2], serving)
      done(yield* network.plugin("GC", { name: "another", "cni.dev/valid-attachments": [] }))
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "answered p1")

      // Of the two, the second one's attachment is still valid.
      const valid = [{ containerID: Cni.containerId(p2), ifname: "eth0" }]
      done(yield* network.plugin("GC", { "cni.dev/valid-attachments": valid }))
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "refused")
      assert.strictEqual(yield* ask(client, "10.99.0.1", other), "answered p2")

      yield* network.forget
      done(yield* network.tool("gc", p1))
      assert.strictEqual(yield* ask(client, "10.99.0.1", other), "refused")
      assert.deepStrictEqual(yield* contents(host), {})
      assert.deepStrictEqual(yield* network.byNode, [])
    })
  )

  it.live("fails to DEL with a remedy while no plugin runs, and frees the port once one does", () =>
    Effect.gen(function* () {
      const { client, host, network, p1 } = yield* setUp
      const plugin = yield* Plugin.start(host, { folder: network.folder })
      done(yield* network.tool("add", p1, [web]))
      yield* serving(p1)
      yield* plugin.process.stop
      const failed = yield* network.tool("del", p1, [web])
      assert.strictEqual(failed.code, 1)
      assert.match(
        failed.stderr,
        /no portmapper serves \S+; start it: systemctl start portmapper, or portmapper serve --socket \S+/
      )
      const { stdout } = yield* network.plugin("STATUS")
      assert.strictEqual(JSON.parse(stdout).code, 50)
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "answered p1")
      yield* Plugin.start(host, { folder: network.folder })
      done(yield* network.tool("del", p1, [web]))
      assert.strictEqual(yield* ask(client, "10.99.0.1"), "refused")
      assert.deepStrictEqual(yield* contents(host), {})
    })
  )
})
