/**
 * The surroundings of a relay test: routes to open, and Node's own clients and backends on either side of them.
 * Everything is closed at the end, whatever happened.
 */
import { createSocket, type Socket as Datagrams } from "node:dgram"
import { once } from "node:events"
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { it } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import * as LinuxSockets from "../../adapters/linux/sockets/LinuxSockets.ts"
import * as LinuxRelay from "../../adapters/relay/LinuxRelay.ts"
import { type HostSocket, HostSockets } from "../../src/ports/HostSockets.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import type { Endpoint } from "../../src/protocol/PortBinding.ts"
import { Relay, type RelayCount, type Route, routeKey } from "../../src/relay/Relay.ts"
import { patienceMillis } from "../lab/patience.ts"

export const linuxRelay = (options: LinuxRelay.RelayOptions = {}) =>
  LinuxRelay.layer(options).pipe(Layer.provideMerge(LinuxSockets.layer()))

export type Asked = Pick<Route, "port" | "backend"> & {
  readonly protocol: "tcp" | "udp"
  readonly host?: string
  /** Shared with another route; without it, a socket is reserved for this route. */
  readonly socket?: HostSocket
} & Partial<
    Pick<
      Route,
      "admits" | "allow" | "proxyProtocol" | "udpIdle" | "share" | "limits" | "idle" | "waitHealthy"
    >
  >

export class World {
  private readonly closing: Array<() => void> = []
  /** The relay's log lines. */
  readonly logged: ReadonlyArray<string>
  readonly run: <A, E>(
    effect: Effect.Effect<A, E, Relay | HostSockets | LinuxRelay.RelayHandover>
  ) => Promise<A>

  constructor(run: World["run"], logged: ReadonlyArray<string>) {
    this.run = run
    this.logged = logged
  }

  reserve(protocol: "tcp" | "udp", host: string, port: number): Promise<HostSocket> {
    return this.run(
      Effect.flatMap(HostSockets, (sockets) => sockets.open(protocol, addressUnsafe(host), port))
    )
  }

  async open(asked: Asked): Promise<Route> {
    const { host = "127.0.0.1", protocol, port, socket } = asked
    const route: Route = {
      admits: "everything",
      allow: undefined,
      proxyProtocol: undefined,
      udpIdle: undefined,
      ...asked,
      host: addressUnsafe(host),
      socket: socket ?? (await this.reserve(protocol, host, port))
    }
    await this.run(Effect.flatMap(Relay, (relay) => relay.open(route)))
    return route
  }

  /** Opens a route in place of another. */
  async reopen(route: Route): Promise<void> {
    await this.run(Effect.flatMap(Relay, (relay) => relay.open(route)))
  }

  /** As unmapping does: closes the route, then the socket. */
  async close(route: Route): Promise<void> {
    await this.run(
      Effect.gen(function* () {
        yield* (yield* Relay).close(route)
        yield* (yield* HostSockets).close(route.socket)
      })
    )
  }

  async count(route: Route): Promise<Omit<RelayCount, "protocol" | "host" | "port" | "open">> {
    const counted = await this.run(Effect.flatMap(Relay, (relay) => relay.counted))
    const own = counted.find((one) => routeKey(one) === routeKey(route))
    if (own === undefined) throw new Error("the route is not counted")
    const { connections, refused, bytesIn, bytesOut } = own
    return { connections, refused, bytesIn, bytesOut }
  }

  /** A backend; a connection it accepts is half-open until the backend ends its own side. */
  async backend(serve: (socket: Socket) => void, host = "127.0.0.1", port = 0): Promise<Endpoint> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.closing.push(() => socket.destroy())
      socket.on("error", () => {})
      serve(socket)
    })
    this.closing.push(() => server.close())
    server.listen({ port, host, backlog: 4096 })
    await once(server, "listening")
    return endpoint(host, (server.address() as AddressInfo).port)
  }

  dial(
    port: number,
    host = "127.0.0.1",
    options: { readonly localAddress?: string; readonly localPort?: number } = {}
  ): Socket {
    const socket = connect({ port, host, allowHalfOpen: true, noDelay: true, ...options })
    this.closing.push(() => socket.destroy())
    socket.on("error", () => {})
    return socket
  }

  async datagrams(host = "127.0.0.1", port = 0): Promise<Datagrams> {
    const socket = createSocket(host.includes(":") ? "udp6" : "udp4")
    this.closing.push(() => {
      try {
        socket.close()
      } catch {}
    })
    socket.bind(port, host)
    await once(socket, "listening")
    return socket
  }

  /** A backend that echoes each packet, and lists the ports it received from. */
  async echoDatagrams(host = "127.0.0.1", port = 0) {
    const socket = await this.datagrams(host, port)
    const ports = new Set<number>()
    socket.on("message", (bytes, from) => {
      ports.add(from.port)
      socket.send(bytes, from.port, from.address)
    })
    return { socket, ports, endpoint: endpoint(host, socket.address().port) }
  }

  end(): void {
    for (const close of this.closing.reverse()) close()
  }
}

/** Where a client connects, and where the backend is: of either family. */
export const loopbacks = ["127.0.0.1", "::1"].flatMap((front) =>
  ["127.0.0.1", "::1"].map((backend) => [front, backend] as const)
)

export const endpoint = (host: string, port: number): Endpoint => ({ address: addressUnsafe(host), port })

export const relayTest = (
  title: string,
  body: (world: World) => Promise<void>,
  options: LinuxRelay.RelayOptions = {}
): void => {
  it.live(title, () => {
    const logged: Array<string> = []
    const logger = Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])
    return Effect.gen(function* () {
      const context = yield* Effect.context<Relay | HostSockets | LinuxRelay.RelayHandover>()
      const run = Effect.runPromiseWith(context)
      const world = new World(run, logged)
      yield* Effect.ensuring(
        Effect.promise(() => body(world)),
        Effect.sync(() => world.end())
      )
    }).pipe(Effect.provide(linuxRelay(options).pipe(Layer.provide(logger))))
  })
}

/** A client that is connected, to the relay at least. */
export const connected = async (world: World, port: number): Promise<Socket> => {
  const socket = world.dial(port)
  await once(socket, "connect")
  return socket
}

/** Sends a packet; `refused` becomes the error that its sender gets. */
export const sent = async (world: World, text: string, port: number) => {
  const sender = await world.datagrams()
  sender.connect(port, "127.0.0.1")
  await once(sender, "connect")
  const refused = once(sender, "error").then(([error]: Array<NodeJS.ErrnoException>) => error?.code)
  sender.send(text)
  return { refused }
}

export const sleep = (millis: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, millis))

/** All bytes until the end, or an error. */
export const readAll = async (socket: Socket): Promise<Buffer> => {
  const chunks: Array<Buffer> = []
  for await (const chunk of socket) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

export const nextData = async (socket: Socket): Promise<string> => {
  const [bytes] = (await once(socket, "data")) as [Buffer]
  return bytes.toString()
}

/** How a connection ends: `end`, or the code of the error; and the bytes before it. */
export const ending = (socket: Socket): Promise<{ readonly how: string; readonly text: string }> =>
  new Promise((resolve) => {
    let text = ""
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString()
    })
    socket.on("end", () => resolve({ how: "end", text }))
    socket.on("error", (error: NodeJS.ErrnoException) => resolve({ how: error.code ?? "?", text }))
  })

/** The answer to one packet with its source, or `undefined` where none came in time. */
export const exchange = (
  socket: Datagrams,
  bytes: Uint8Array | string,
  port: number,
  host: string,
  patience = patienceMillis
): Promise<{ readonly size: number; readonly text: string; readonly from: string } | undefined> =>
  new Promise((resolve) => {
    const onMessage = (answer: Buffer, { address }: { readonly address: string }) => {
      clearTimeout(timer)
      resolve({ size: answer.length, text: answer.subarray(0, 100).toString(), from: address })
    }
    const timer = setTimeout(() => {
      socket.off("message", onMessage)
      resolve(undefined)
    }, patience)
    socket.once("message", onMessage)
    socket.send(bytes, port, host)
  })
