import { once } from "node:events"
import { assert } from "@effect/vitest"
import { describeInNamespace, ip } from "../../linux/namespace.ts"
import { ending, endpoint, exchange, relayTest, type World } from "../world.ts"

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
        new Set(["relay: its backend leads back to the relay, which ends what comes back"])
      )

    relayTest(`resets TCP at its first connection: ${loop.name}`, async (world) => {
      const routes = await opened(world, "tcp", loop)
      for (let round = 1; round <= 3; round++) {
        assert.strictEqual((await ending(world.dial(18300, loop.to))).how, "ECONNRESET")
        const counts = await Promise.all(routes.map(async (route) => (await world.count(route)).connections))
        // Nobody but the client was served; once a circle is known, the relay may serve itself at one place of it.
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
        // The thread has been through whatever the packet led to.
        for (let fence = 0; fence < 5; fence++)
          await exchange(await world.datagrams(), "x", 18309, "127.0.0.1")
        const counts = await Promise.all(routes.map(async (route) => (await world.count(route)).connections))
        assert.isAtMost(Math.max(...counts), round)
        assert.isAtMost((await world.count(routes[0] ?? assert.fail())).bytesIn, round * 5)
      }
      isFound(world)
    })
  }

  relayTest(
    "serves a client of this host whose port is that of a socket to a backend elsewhere",
    async (world) => {
      const backend = await world.backend((socket) => socket.end(`${socket.remotePort}`))
      await world.open({ protocol: "tcp", port: 18300, backend })
      const relayPort = Number((await ending(world.dial(18300))).text)
      const client = world.dial(18300, "127.0.0.1", { localAddress: "127.0.0.2", localPort: relayPort })
      await once(client, "connect")
      assert.match((await ending(client)).text, /^\d+$/)
    }
  )
})
