import { once } from "node:events"
import { assert, describe } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { IpNetwork } from "effect/net"
import { HostSockets } from "../../../src/ports/HostSockets.ts"
import { reservePorts } from "../../support/ports.ts"
import { ending, endpoint, nextData, readAll, relayTest } from "../world.ts"

const free = await reservePorts()

const tcp = "tcp" as const

describe("a client of a relayed port", () => {
  relayTest("hands on what a backend says first", async (world) => {
    const backend = await world.backend((socket) => {
      socket.write("banner")
      socket.pipe(socket)
    })
    await world.open({ protocol: tcp, port: free(3), backend })
    const client = world.dial(free(3))
    assert.strictEqual(await nextData(client), "banner")
    client.write("abc")
    assert.strictEqual(await nextData(client), "abc")
  })

  for (const text of ["", "x"])
    relayTest(
      `resets the client where the backend refuses${text === "" ? "" : ", whatever it has sent"}`,
      async (world) => {
        await world.open({ protocol: tcp, port: free(4), backend: endpoint("127.0.0.1", 1) })
        const client = world.dial(free(4))
        const ended = ending(client)
        if (text !== "") client.write(text)
        assert.deepStrictEqual(await ended, { how: "ECONNRESET", text: "" })
      }
    )

  relayTest(
    "resets the client where the backend does not accept in time",
    async (world) => {
      // A listener whose backlog is full does not answer.
      const full = await world.reserve("tcp", "127.0.0.1", free(11))
      await world.run(Effect.flatMap(HostSockets, (sockets) => sockets.admit(full, "nothing")))
      await world.open({ protocol: tcp, port: free(10), backend: endpoint("127.0.0.1", free(11)) })
      const begun = Date.now()
      const { how } = await ending(world.dial(free(10)))
      assert.strictEqual(how, "ECONNRESET")
      assert.isAtLeast(Date.now() - begun, 300)
      // Long before the default timeout.
      assert.isBelow(Date.now() - begun, 8000)
    },
    { connectTimeout: Duration.millis(300) }
  )

  relayTest("keeps 2,000 connections open at once", async (world) => {
    const backend = await world.backend((socket) => socket.pipe(socket))
    await world.open({ protocol: tcp, port: free(12), backend })
    const answers = await Promise.all(
      Array.from({ length: 2000 }, async (_, index) => {
        const client = world.dial(free(12), "127.0.0.1")
        client.write(`number ${index}`)
        return [client, await nextData(client)] as const
      })
    )
    assert.deepStrictEqual(
      answers.map(([, text]) => text),
      answers.map((_, index) => `number ${index}`)
    )
    await Promise.all(
      answers.map(([client]) => {
        client.end()
        return readAll(client)
      })
    )
  })

  relayTest("resets sources that are not allowed, and counts them", async (world) => {
    const backend = await world.backend((socket) => socket.end("welcome"))
    const route = await world.open({
      protocol: tcp,
      port: free(16),
      backend,
      allow: ["127.0.1.0/25", "10.0.0.0/8", "::1/128"].map(IpNetwork.fromStringUnsafe)
    })
    const from = async (localAddress: string) =>
      (await ending(world.dial(free(16), "127.0.0.1", { localAddress }))).text
    assert.deepStrictEqual(
      [
        await from("127.0.1.1"),
        await from("127.0.1.127"),
        await from("127.0.1.128"),
        await from("127.0.0.1")
      ],
      ["welcome", "welcome", "", ""]
    )
    const { connections, refused } = await world.count(route)
    assert.deepStrictEqual([connections, refused.allow], [2, 2])
    await world.reopen({ ...route, allow: undefined })
    assert.strictEqual(await from("127.0.0.1"), "welcome")
  })

  relayTest("tells the backend who called, by the PROXY protocol", async (world) => {
    const backend = await world.backend(async (socket) => {
      socket.end(await readAll(socket))
    })
    const local4 = await world.open({ protocol: tcp, port: free(17), backend, proxyProtocol: "v1" })
    const local6 = await world.open({
      protocol: tcp,
      host: "::1",
      port: free(17),
      backend,
      proxyProtocol: "v2"
    })
    const received = async (host: string, text: string) => {
      const client = world.dial(free(17), host)
      await once(client, "connect")
      const port = client.localPort ?? 0
      client.end(text)
      return [port, await readAll(client)] as const
    }
    const [port, text] = await received("127.0.0.1", "hi")
    assert.strictEqual(text.toString(), `PROXY TCP4 127.0.0.1 127.0.0.1 ${port} ${free(17)}\r\nhi`)
    const [port6, bytes] = await received("::1", "")
    assert.strictEqual(
      bytes.toString("hex"),
      `0d0a0d0a000d0a515549540a21210024${`${"0".repeat(31)}1`.repeat(2)}${hex16(port6)}${hex16(free(17))}`
    )
    assert.strictEqual((await world.count(local4)).bytesIn, 2)
    assert.strictEqual((await world.count(local6)).bytesIn, 0)
  })

  relayTest("sends the PROXY protocol's header to a backend that speaks first", async (world) => {
    const received = Promise.withResolvers<string>()
    const backend = await world.backend((socket) => {
      socket.write("220 ready")
      socket.once("data", (bytes) => received.resolve(bytes.toString()))
    })
    await world.open({ protocol: tcp, port: free(18), backend, proxyProtocol: "v1" })
    const client = world.dial(free(18))
    assert.strictEqual(await nextData(client), "220 ready")
    assert.match(
      await received.promise,
      new RegExp(`^PROXY TCP4 127.0.0.1 127.0.0.1 \\d+ ${free(18)}\\r\\n$`)
    )
  })
})

const hex16 = (number: number): string => number.toString(16).padStart(4, "0")
