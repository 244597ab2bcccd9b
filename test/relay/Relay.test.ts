import { createSocket } from "node:dgram"
import { once } from "node:events"
import { type AddressInfo, connect, createServer } from "node:net"
import { Effect, Layer } from "effect"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { MemoryRelay, Relay, type Route } from "../../src/relay/Relay.ts"
import { reservePorts } from "../support/ports.ts"
import { relayConformance, type Traffic } from "./relayConformance.ts"
import { endpoint, linuxRelay } from "./world.ts"

let nextPort = 9
const inMemory: Traffic<MemoryRelay> = {
  backend: () => Effect.sync(() => endpoint("127.0.0.1", nextPort++)),
  client: (route, source) =>
    Effect.map(MemoryRelay, ({ connect }) => {
      let connection = connect(route, addressUnsafe(source))
      let name = 1
      return Effect.sync(() => {
        if (connection.isOpen()) return `${name}`
        if (route.protocol === "tcp") return undefined
        // A packet begins a flow if there is none.
        connection = connect(route, addressUnsafe(source))
        return connection.isOpen() ? `${++name}` : undefined
      })
    })
}

/** The backend names the port that the relay connects from. */
const overLoopback: Traffic<never> = {
  backend: (protocol) => (protocol === "tcp" ? tcpBackend : udpBackend),
  client: (route, source) => (route.protocol === "tcp" ? tcpClient(route, source) : udpClient(route, source))
}

const tcpBackend = Effect.map(
  Effect.acquireRelease(
    Effect.promise(async () => {
      const server = createServer((socket) => {
        socket.on("error", () => {}).on("data", () => socket.write(`${socket.remotePort}`))
      }).listen(0, "127.0.0.1")
      await once(server, "listening")
      return server
    }),
    (server) => Effect.sync(() => server.close())
  ),
  (server) => endpoint("127.0.0.1", (server.address() as AddressInfo).port)
)

const udpSocket = (host: string) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const socket = createSocket("udp4")
      socket.bind(0, host)
      await once(socket, "listening")
      return socket
    }),
    (socket) => Effect.sync(() => socket.close())
  )

const udpBackend = Effect.map(udpSocket("127.0.0.1"), (socket) => {
  socket.on("message", (_, from) => socket.send(`${from.port}`, from.port, from.address))
  return endpoint("127.0.0.1", socket.address().port)
})

const tcpClient = ({ port, host }: Route, localAddress: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => connect({ port, host: host.text, localAddress }).on("error", () => {})),
      (socket) => Effect.sync(() => socket.destroy())
    ),
    (socket) =>
      Effect.promise(
        () =>
          new Promise<string | undefined>((resolve) => {
            if (socket.destroyed) return resolve(undefined)
            socket.once("data", (name) => resolve(name.toString())).once("close", () => resolve(undefined))
            socket.write("x")
          })
      )
  )

const udpClient = ({ port, host }: Route, source: string) =>
  Effect.map(
    Effect.tap(udpSocket(source), (socket) =>
      // Only a connected socket hears that it was refused.
      Effect.promise(() => {
        socket.connect(port, host.text)
        return once(socket, "connect")
      })
    ),
    (socket) =>
      Effect.promise(async () => {
        socket.send("x")
        const [name] = await (once(socket, "message") as Promise<[Buffer]>).catch(() => [undefined])
        return name?.toString()
      })
  )

const free = await reservePorts()
relayConformance(
  "Relay in memory",
  Layer.merge(Relay.layerMemory, HostSockets.layerMemory),
  free(0),
  inMemory
)
relayConformance("Relay on Linux", linuxRelay(), free(0), overLoopback)
