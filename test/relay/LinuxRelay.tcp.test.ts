import { once } from "node:events"
import { readFileSync } from "node:fs"
import { assert, describe } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { IpNetwork } from "effect/net"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { noneRefused } from "../../src/protocol/Limits.ts"
import { Relay } from "../../src/relay/Relay.ts"
import { reservePorts } from "../support/ports.ts"
import { ending, endpoint, nextData, readAll, relayTest, sleep } from "./world.ts"

const free = await reservePorts()

const tcp = "tcp" as const

/** Long enough for what a busy machine does meanwhile. */
const graceMillis = 3000

describe("LinuxRelay, TCP", () => {
  for (const [frontHost, backendHost] of [
    ["127.0.0.1", "127.0.0.1"],
    ["127.0.0.1", "::1"],
    ["::1", "127.0.0.1"],
    ["::1", "::1"]
  ] as const)
    relayTest(`carries bytes both ways from ${frontHost} to ${backendHost}`, async (world) => {
      const backend = await world.backend((socket) => socket.pipe(socket), backendHost)
      const route = await world.open({ protocol: tcp, host: frontHost, port: free(0), backend })
      const client = world.dial(free(0), frontHost)
      const sent = Buffer.alloc(300_000, "abc")
      client.end(sent)
      assert.isTrue((await readAll(client)).equals(sent))
      assert.deepStrictEqual(await world.count(route), {
        connections: 1,
        refused: noneRefused,
        bytesIn: 300_000,
        bytesOut: 300_000
      })
    })

  relayTest("passes on the client's end while the backend goes on", async (world) => {
    const backend = await world.backend(async (socket) => {
      const received = await readAll(socket)
      socket.end(`got ${received.length}`)
    })
    await world.open({ protocol: tcp, port: free(1), backend })
    const client = world.dial(free(1))
    client.end(Buffer.alloc(3_000_001))
    assert.strictEqual((await readAll(client)).toString(), "got 3000001")
  })

  relayTest("passes on the backend's end while the client goes on", async (world) => {
    let received = 0
    const all = Promise.withResolvers<void>()
    const backend = await world.backend((socket) => {
      socket.on("data", (bytes) => {
        received += bytes.length
      })
      socket.on("end", () => all.resolve())
      socket.end("hello")
    })
    await world.open({ protocol: tcp, port: free(2), backend })
    const client = world.dial(free(2))
    assert.strictEqual((await readAll(client)).toString(), "hello")
    client.end(Buffer.alloc(1_000_000))
    await all.promise
    assert.strictEqual(received, 1_000_000)
  })

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

  relayTest("resets the backend where the client resets", async (world) => {
    const seen = Promise.withResolvers<string>()
    const backend = await world.backend((socket) => void ending(socket).then(({ how }) => seen.resolve(how)))
    await world.open({ protocol: tcp, port: free(5), backend })
    const client = world.dial(free(5))
    client.write("x")
    await sleep(50)
    client.resetAndDestroy()
    assert.strictEqual(await seen.promise, "ECONNRESET")
  })

  relayTest("delivers what a backend text before it reset, then resets the client", async (world) => {
    const backend = await world.backend((socket) => {
      socket.write("last words")
      setTimeout(() => socket.resetAndDestroy(), 30)
    })
    await world.open({ protocol: tcp, port: free(6), backend })
    assert.deepStrictEqual(await ending(world.dial(free(6))), { how: "ECONNRESET", text: "last words" })
  })

  relayTest("resets the client where the backend ended and then reset", async (world) => {
    const backend = await world.backend((socket) => {
      socket.resume()
      socket.end("bye")
      setTimeout(() => socket.resetAndDestroy(), 50)
    })
    await world.open({ protocol: tcp, port: free(7), backend })
    const client = world.dial(free(7))
    const reset = new Promise<string>((resolve) =>
      client.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""))
    )
    client.resume()
    await once(client, "end")
    const writing = setInterval(() => client.write("x"), 20)
    assert.match(await reset, /ECONNRESET|EPIPE/)
    clearInterval(writing)
  })

  relayTest("stops a client whose backend does not read, and loses nothing", async (world) => {
    const accepted = Promise.withResolvers<import("node:net").Socket>()
    const backend = await world.backend((socket) => {
      socket.pause()
      accepted.resolve(socket)
    })
    await world.open({ protocol: tcp, port: free(8), backend })
    const client = world.dial(free(8))
    await once(client, "connect")
    const chunk = Buffer.alloc(65536, 7)
    let sent = 0
    let lastDrain = Date.now()
    while (Date.now() - lastDrain < 300)
      if (client.writableNeedDrain) await sleep(20)
      else {
        client.write(chunk)
        sent += chunk.length
        lastDrain = Date.now()
      }
    assert.isBelow(sent, 64 << 20)
    client.end()
    const received = await readAll(await accepted.promise)
    assert.strictEqual(received.length, sent)
  })

  relayTest("delivers to a slow client all that the backend text before its end", async (world) => {
    const size = 20_000_000
    const backend = await world.backend((socket) => socket.end(Buffer.alloc(size, 1)))
    await world.open({ protocol: tcp, port: free(9), backend })
    const client = world.dial(free(9))
    client.pause()
    await sleep(300)
    assert.strictEqual((await readAll(client)).length, size)
  })

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

  relayTest(
    "stops accepting once closed, ends open connections after the grace time, and frees the port at once",
    async (world) => {
      const backend = await world.backend((socket) => socket.pipe(socket))
      const route = await world.open({ protocol: tcp, port: free(13), backend })
      const client = world.dial(free(13))
      client.write("before")
      await nextData(client)
      const begun = Date.now()
      const ended = new Promise<string>((resolve) =>
        client.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""))
      )
      await world.close(route)
      // The port is free before the grace time is over.
      assert.isBelow(Date.now() - begun, graceMillis)
      const refused = await ending(world.dial(free(13)))
      assert.strictEqual(refused.how, "ECONNREFUSED")

      const other = await world.backend((socket) => socket.end("other"))
      await world.open({ protocol: tcp, port: free(13), backend: other })
      assert.strictEqual((await ending(world.dial(free(13)))).text, "other")
      client.write("within grace")
      assert.strictEqual(await nextData(client), "within grace")
      assert.strictEqual(await ended, "ECONNRESET")
      assert.isAtLeast(Date.now() - begun, graceMillis)
      assert.strictEqual((await ending(world.dial(free(13)))).text, "other")
    },
    { grace: Duration.millis(graceMillis) }
  )

  relayTest(
    "sends new connections by a route that replaced another, and lets the old ones go on",
    async (world) => {
      const first = await world.backend((socket) =>
        socket.on("data", (bytes) => socket.write(`first ${bytes}`))
      )
      const second = await world.backend((socket) =>
        socket.on("data", (bytes) => socket.write(`second ${bytes}`))
      )
      const route = await world.open({ protocol: tcp, port: free(14), backend: first })
      const old = world.dial(free(14))
      old.write("a")
      assert.strictEqual(await nextData(old), "first a")
      await world.reopen({ ...route, backend: second })
      const young = world.dial(free(14))
      young.write("b")
      assert.strictEqual(await nextData(young), "second b")
      old.write("c")
      assert.strictEqual(await nextData(old), "first c")
      assert.strictEqual((await world.count(route)).connections, 2)
    }
  )

  relayTest("serves on as before where a replacement fails", async (world) => {
    const backend = await world.backend((socket) => socket.end("here"))
    const route = await world.open({ protocol: tcp, port: free(15), backend })
    const error = await world.run(
      Effect.flatMap(Relay, (relay) =>
        Effect.flip(relay.open({ ...route, backend: endpoint("fe80::1%nowhere", 80) }))
      )
    )
    assert.strictEqual(
      error.message,
      `relay for 127.0.0.1:${free(15)}/tcp failed: there is no interface nowhere`
    )
    assert.strictEqual((await ending(world.dial(free(15)))).text, "here")
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

  relayTest("keeps its connections to clients alive", async (world) => {
    const backend = await world.backend((socket) => socket.pipe(socket))
    await world.open({ protocol: tcp, port: free(20), backend })
    const client = world.dial(free(20))
    client.write("x")
    await nextData(client)
    // The fields of proc_net_tcp(5): an established connection, and the timer of a keepalive.
    const port = free(20).toString(16).padStart(4, "0").toUpperCase()
    const accepted = readFileSync("/proc/net/tcp", "utf8")
    assert.match(accepted, new RegExp(` 0100007F:${port} \\S+ 01 \\S+ 02:`))
  })
})

const hex16 = (number: number): string => number.toString(16).padStart(4, "0")
