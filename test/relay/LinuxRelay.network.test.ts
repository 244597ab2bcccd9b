import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { afterAll, assert, beforeAll } from "@effect/vitest"
import { Effect } from "effect"
import type { HostSocket } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { Relay } from "../../src/relay/Relay.ts"
import { slotOfSource } from "../../src/relay/SourceHash.ts"
import { describeInNamespace, ip, run } from "../lab/ThreadNamespace.ts"
import { untilEqual } from "../support/until.ts"
import { ending, endpoint, exchange, readAll, relayTest, type World } from "./world.ts"

/**
 * This side has 10.1.0.1 to .3 and fd00:1::1 to ::2, fe80::1; the other side, across a link with an MTU of 1500 bytes, is
 * 10.1.0.9, fd00:1::9 and fe80::9, and echoes on port 7.
 */
describeInNamespace("LinuxRelay between hosts", () => {
  ip("link add eth0 type veth peer name eth1")
  ip("link set eth0 up")
  for (const host of [1, 2, 3]) ip(`address add 10.1.0.${host}/24 dev eth0`)
  for (const host of [1, 2]) ip(`address add fd00:1::${host}/64 dev eth0 nodad`)
  ip("address add fe80::1/64 dev eth0 nodad")
  const other = spawn("unshare", ["--net", process.execPath, "--input-type=module", "--eval", echo], {
    stdio: ["pipe", "pipe", "inherit"]
  })

  beforeAll(async () => {
    const lines = createInterface(other.stdout)
    await once(lines, "line")
    ip(`link set eth1 netns ${other.pid}`)
    const there = (command: string) => run(`nsenter --net=/proc/${other.pid}/ns/net ip ${command}`)
    there("link set lo up")
    there("link set eth1 up")
    there("address add 10.1.0.9/24 dev eth1")
    there("address add fd00:1::9/64 dev eth1 nodad")
    there("address add fe80::9/64 dev eth1 nodad")
    other.stdin.write("bind\n")
    await once(lines, "line")
  })
  afterAll(() => void other.kill("SIGKILL"))

  for (const [host, addresses] of [
    ["0.0.0.0", ["127.0.0.1", "127.0.0.7", "10.1.0.1", "10.1.0.2"]],
    ["::", ["::1", "fd00:1::1", "fd00:1::2"]]
  ] as const)
    relayTest(`answers UDP from the address that was spoken to, on ${host}`, async (world) => {
      const backend = await world.echoDatagrams()
      await world.open({ protocol: "udp", host, port: 18200, backend: backend.endpoint })
      const client = await world.datagrams(host)
      for (const address of addresses) {
        const answer = await exchange(client, "whoami", 18200, address)
        assert.deepStrictEqual([answer?.text, answer?.from], ["whoami", address])
      }
      assert.strictEqual(backend.ports.size, addresses.length)
    })

  for (const [host, own, others] of [
    ["0.0.0.0", "127.0.0.1", ["255.255.255.255", "10.1.0.255", "224.0.0.1", "127.255.255.255"]],
    ["::", "::1", ["ff02::1%eth0"]]
  ] as const)
    for (const admits of ["everything", "loopback"] as const)
      relayTest(`drops UDP to an address that other hosts share, on ${host}, ${admits}`, async (world) => {
        const backend = await world.echoDatagrams()
        const received: Array<string> = []
        backend.socket.on("message", (bytes) => received.push(bytes.toString()))
        await world.open({ protocol: "udp", host, port: 18207, backend: backend.endpoint, admits })
        const client = await world.datagrams(host)
        client.setBroadcast(true)
        for (const address of others) client.send(`to ${address}`, 18207, address)
        assert.strictEqual((await exchange(client, "to me", 18207, own))?.text, "to me")
        assert.deepStrictEqual(received, ["to me"])
      })

  for (const protocol of ["tcp", "udp"] as const) {
    relayTest(`leads ${protocol} by the address spoken to, where routes share a socket`, async (world) => {
      for (const [any, first, second] of [
        ["0.0.0.0", "10.1.0.1", "10.1.0.2"],
        ["::", "fd00:1::1", "fd00:1::2"]
      ] as const) {
        const backends = await Promise.all(
          ["rest", "first", "second"].map((name) => named(world, protocol, name))
        )
        const [rest, one, two] = backends as [Backend, Backend, Backend]
        const wide = await world.open({ protocol, host: any, port: 18201, backend: rest })
        const { socket } = wide
        const firstRoute = await world.open({ protocol, host: first, port: 18201, socket, backend: one })
        await world.open({ protocol, host: second, port: 18201, socket, backend: two })
        const loopback = any === "::" ? "::1" : "127.0.0.1"
        const received = () =>
          Promise.all([first, second, loopback].map((host) => ask(world, protocol, host, 18201)))
        await untilEqual(received, ["first", "second", "rest"])
        await world.run(Effect.flatMap(Relay, (relay) => relay.close(firstRoute)))
        await untilEqual(received, ["rest", "second", "rest"])
        await world.run(Effect.flatMap(Relay, (relay) => relay.close(wide)))
        await untilEqual(received, [undefined, "second", undefined])
      }
    })

    relayTest(`leads ${protocol} to the backend that has the client's slot`, async (world) => {
      for (const [any, own, size] of [
        ["0.0.0.0", "10.1.0.1", 64],
        ["::", "fd00:1::1", 1024]
      ] as const) {
        const slots = Array.from({ length: size }, (_, slot) => slot)
        const { octets } = addressUnsafe(own)
        // The client's address is the one that it sends to, on this host.
        const hashed = slotOfSource(octets, 0, octets.length, size)
        const share = (own: ReadonlyArray<number>) => ({ balance: "source", size, slots: own }) as const
        const opened = async (name: string, own: ReadonlyArray<number>, socket?: HostSocket) => {
          const asked = { protocol, host: any, port: 18204, share: share(own), ...(socket && { socket }) }
          return world.open({ ...asked, backend: await named(world, protocol, name) })
        }
        const first = await opened(
          "a",
          slots.filter((slot) => slot !== hashed)
        )
        const second = await opened("b", [hashed], first.socket)
        assert.strictEqual(await ask(world, protocol, own, 18204), "b")
        await world.reopen({ ...first, share: share(slots) })
        await world.run(Effect.flatMap(Relay, (relay) => relay.close(second)))
        assert.strictEqual(await ask(world, protocol, own, 18204), "a")
        await world.close(first)
      }
    })

    relayTest(`admits what the routes of a socket want: ${protocol} from loopback, or all`, async (world) => {
      const backend = await named(world, protocol, "served")
      const wide = await world.open({ protocol, host: "0.0.0.0", port: 18202, backend, admits: "loopback" })
      const { socket } = wide
      const received = () =>
        Promise.all(["127.0.0.1", "10.1.0.1"].map((host) => ask(world, protocol, host, 18202)))
      await untilEqual(received, ["served", undefined])
      const local = await world.open({ protocol, host: "127.0.0.2", port: 18202, socket, backend })
      await untilEqual(received, ["served", undefined])
      const one = await world.open({ protocol, host: "10.1.0.1", port: 18202, socket, backend })
      await untilEqual(received, ["served", "served"])
      for (const route of [one, local]) await world.run(Effect.flatMap(Relay, (relay) => relay.close(route)))
      await untilEqual(received, ["served", undefined])
      await world.run(Effect.flatMap(Relay, (relay) => relay.close(wide)))
      await untilEqual(received, [undefined, undefined])
    })

    relayTest(`serves ${protocol} on a link-local address, to a backend of another`, async (world) => {
      const backend = await named(world, protocol, "near")
      await world.open({ protocol, host: "fe80::1%eth0", port: 18203, backend })
      assert.strictEqual(await ask(world, protocol, "fe80::1%eth0", 18203), "near")
      const far = { protocol, host: "::1", port: 18204, backend: endpoint("fe80::9%eth0", 7) }
      await world.open(far)
      assert.strictEqual(await ask(world, protocol, "::1", 18204), "echo")
    })

    relayTest(`serves ${protocol} by link-local addresses on the unspecified address`, async (world) => {
      await world.open({ protocol, host: "::", port: 18205, backend: await named(world, protocol, "near") })
      assert.strictEqual(await ask(world, protocol, "fe80::1%eth0", 18205), "near")
    })

    for (const [host, remote] of [
      ["10.1.0.1", "10.1.0.9"],
      ["10.1.0.1", "fd00:1::9"],
      ["fd00:1::1", "10.1.0.9"],
      ["fd00:1::1", "fd00:1::9"]
    ] as const)
      relayTest(`carries ${protocol} from ${host} to another host, ${remote}`, async (world) => {
        const route = await world.open({ protocol, host, port: 18206, backend: endpoint(remote, 7) })
        assert.strictEqual(await ask(world, protocol, host, 18206), "echo")
        if (protocol === "tcp") {
          const sent = Buffer.alloc(5_000_000, "0123456789")
          const client = world.dial(18206, host)
          client.end(sent)
          assert.isTrue((await readAll(client)).equals(sent))
          assert.strictEqual((await world.count(route)).bytesOut, 5_000_004)
          return
        }
        const client = await world.datagrams(host)
        const sizes = [1400, 1400, 1400, 3000, 3000, 3000, 20_000, 20_000]
        const seen: Array<number> = []
        client.on("message", (bytes) => seen.push(bytes.length))
        for (const size of sizes) client.send(Buffer.alloc(size), 18206, host)
        for (let wait = 0; seen.length < sizes.length && wait < 100; wait++)
          await new Promise((resolve) => setTimeout(resolve, 20))
        assert.deepStrictEqual(seen, sizes)
      })
  }

  relayTest("resets the client where another host refuses", async (world) => {
    await world.open({ protocol: "tcp", port: 18207, backend: endpoint("10.1.0.9", 8) })
    const client = world.dial(18207)
    client.write("anyone there?")
    assert.deepStrictEqual(await ending(client), { how: "ECONNRESET", text: "" })
  })
})

type Backend = ReturnType<typeof endpoint>

/** A backend that answers any packet with its name. */
const named = async (world: World, protocol: "tcp" | "udp", name: string): Promise<Backend> => {
  if (protocol === "tcp") return world.backend((socket) => void socket.once("data", () => socket.end(name)))
  const socket = await world.datagrams()
  socket.on("message", (_, { port, address }) => socket.send(name, port, address))
  return endpoint("127.0.0.1", socket.address().port)
}

/** The answer over the route; `undefined` where none comes. */
const ask = async (
  world: World,
  protocol: "tcp" | "udp",
  host: string,
  port: number
): Promise<string | undefined> => {
  if (protocol === "udp") {
    const client = await world.datagrams(host.includes(":") ? "::" : "0.0.0.0")
    return (await exchange(client, "echo", port, host, 400))?.text
  }
  const client = world.dial(port, host)
  client.end("echo")
  const none = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), 400))
  return Promise.race([none, ending(client).then(({ text }) => (text === "" ? undefined : text))])
}

/** The program on the other side. */
const echo = `
  import { createServer } from "node:net"
  import { createSocket } from "node:dgram"
  console.log("here")
  process.stdin.once("data", () => {
    createServer({ allowHalfOpen: true }, (socket) => { socket.on("error", () => {}); socket.pipe(socket) })
      .listen(7, "::", () => {
        const six = createSocket({ type: "udp6", ipv6Only: false })
        six.on("message", (bytes, { port, address }) => six.send(bytes, port, address))
        six.bind(7, "::", () => console.log("bound"))
      })
  })`
