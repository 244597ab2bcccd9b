import { readFileSync, writeFileSync } from "node:fs"
import { assert } from "@effect/vitest"
import { describeInNamespace, ip, run } from "../../lab/ThreadNamespace.ts"
import { ending, endpoint, exchange, nextData, relayTest, type World } from "../world.ts"

describeInNamespace("what the relay sends to itself", () => {
  ip("address add 10.1.0.1/32 dev lo")
  ip("address add fd00:1::1/128 dev lo nodad")

  const loops = [
    {
      name: "a route to its own socket",
      to: "127.0.0.1",
      routes: [["0.0.0.0", 18300, "127.0.0.1", 18300]]
    },
    {
      name: "a route to the host's own address",
      to: "10.1.0.1",
      routes: [["0.0.0.0", 18300, "10.1.0.1", 18300]]
    },
    {
      name: "a route to the host's own IPv6 address",
      to: "fd00:1::1",
      routes: [["::", 18300, "fd00:1::1", 18300]]
    },
    {
      name: "a circle of two routes",
      to: "127.0.0.1",
      routes: [
        ["0.0.0.0", 18300, "127.0.0.1", 18301],
        ["127.0.0.1", 18301, "127.0.0.1", 18300]
      ]
    },
    {
      name: "a circle across IPv4 and IPv6",
      to: "127.0.0.1",
      routes: [
        ["0.0.0.0", 18300, "::1", 18301],
        ["::", 18301, "10.1.0.1", 18300]
      ]
    }
  ] as const

  const opened = (world: World, protocol: "tcp" | "udp", { routes }: (typeof loops)[number]) =>
    Promise.all(
      routes.map(([host, port, to, backendPort]) =>
        world.open({ protocol, host, port, backend: endpoint(to, backendPort) })
      )
    )

  for (const loop of loops) {
    const isFound = (world: World) =>
      assert.deepStrictEqual(
        new Set(world.logged.map((line) => line.replace(/^relay for \S+:1830\d\/(tcp|udp)/, "relay"))),
        new Set(["relay: its backend forwards back to the relay, which ends the looping traffic"])
      )

    relayTest(`resets TCP at its first connection: ${loop.name}`, async (world) => {
      const routes = await opened(world, "tcp", loop)
      for (let round = 1; round <= 3; round++) {
        assert.strictEqual((await ending(world.dial(18300, loop.to))).how, "ECONNRESET")
        const counts = await Promise.all(routes.map(async (route) => (await world.count(route)).connections))
        // Only the client was served; once a circle is known, the relay may serve itself at one place of it.
        assert.isAtMost(Math.max(...counts), round)
      }
      isFound(world)
    })

    relayTest(`drops UDP at its first packet: ${loop.name}`, async (world) => {
      const routes = await opened(world, "udp", loop)
      const echo = await world.echoDatagrams()
      await world.open({ protocol: "udp", port: 18309, backend: echo.endpoint })
      const local = loop.to.includes(":") ? "::" : "0.0.0.0"
      for (let round = 1; round <= 3; round++) {
        const client = await world.datagrams(local)
        client.send("round", 18300, loop.to)
        // The thread has handled everything that the packet caused.
        for (let fence = 0; fence < 5; fence++)
          await exchange(await world.datagrams(), "x", 18309, "127.0.0.1")
        const counts = await Promise.all(routes.map(async (route) => (await world.count(route)).connections))
        assert.isAtMost(Math.max(...counts), round)
        assert.isAtMost((await world.count(routes[0] ?? assert.fail())).bytesIn, round * 5)
      }
      isFound(world)
    })
  }

  relayTest("resets at its first connection what a rule of the kernel leads back", async (world) => {
    run(
      "nft -f -",
      `table ip others {
        chain output {
          type nat hook output priority -100
          ip daddr 10.1.0.1 tcp dport 18302 dnat to 10.1.0.1:18300
        }
      }`
    )
    const backend = endpoint("10.1.0.1", 18302)
    const route = await world.open({ protocol: "tcp", host: "0.0.0.0", port: 18300, backend })
    assert.strictEqual((await ending(world.dial(18300))).how, "ECONNRESET")
    assert.strictEqual((await world.count(route)).connections, 1)
    run("nft delete table ip others")
  })

  relayTest("serves clients of this host that have the ports of its own sockets", async (world) => {
    const backend = await world.backend((socket) => socket.pipe(socket))
    await world.open({ protocol: "tcp", port: 18300, backend })
    const range = "/proc/sys/net/ipv4/ip_local_port_range"
    const before = readFileSync(range, "utf8")
    writeFileSync(range, "40000 40007")
    try {
      // Both sides of the relay use all eight ports.
      for (let count = 0; count < 8; count++) {
        const client = world.dial(18300)
        client.write("served")
        assert.strictEqual(await nextData(client), "served")
      }
    } finally {
      writeFileSync(range, before)
    }
  })
})
