/**
 * The host's sockets, as far as reserving a port needs them: bind, listen, choose what to admit, close. The relay
 * uses a reserved socket's traffic.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { stepped } from "../memory/Steps.ts"
import { type Address, covers } from "../protocol/Address.ts"
import { frontendText, type PublishedPort } from "../protocol/PortBinding.ts"
import { dynamicPorts, type PortRange } from "../protocol/PortRange.ts"
import type { Protocol } from "../protocol/Protocol.ts"
import { AdoptedSockets } from "./AdoptedSockets.ts"

/**
 * What a reserved socket admits. `nothing`: the kernel drops every packet, so no client ever gets a handshake from
 * a placeholder. `loopback`: only packets from or to the host's own loopback addresses, from a link-local IPv6
 * address, and from the backends: those that the kernel's redirections leave to the socket. `everything`: no filter.
 */
export type Admission = "nothing" | "loopback" | "everything"

/**
 * A bound socket, listening where its protocol listens. `fd` is the file descriptor; in memory an arbitrary number.
 */
export interface HostSocket extends PublishedPort {
  readonly fd: number
}

/**
 * `InUse`: another process holds the port. `Denied`: a privileged port, or a security module. `NotLocal`: the
 * address is not one of this host's. `Unsupported`: the kernel lacks the protocol or family. `Exhausted`: no
 * descriptors or memory left. `Failed`: anything else. `detail` is the system's own message.
 */
export const SocketErrorReason = Schema.Literals([
  "InUse",
  "Denied",
  "NotLocal",
  "Unsupported",
  "Exhausted",
  "Failed"
])
export type SocketErrorReason = typeof SocketErrorReason.Type

export class SocketError extends Schema.TaggedError<SocketError>()("SocketError", {
  reason: SocketErrorReason,
  detail: Schema.String
}) {
  override get message(): string {
    return this.detail
  }
}

/**
 * The ports that the system assigns by itself, and those it is configured to reserve; both ends of each range
 * included.
 */
export interface EphemeralPorts {
  readonly range: PortRange
  readonly reserved: ReadonlyArray<PortRange>
}

export class HostSockets extends Context.Service<
  HostSockets,
  {
    /**
     * Binds a port and holds it: TCP and SCTP listen, an IPv6 socket is for IPv6 alone, and nothing is admitted
     * until `admit` says so, not even between bind and listen. A port in TIME_WAIT is free; one that another
     * process listens on is `InUse`. Leaves nothing open after a failure.
     */
    readonly open: (protocol: Protocol, host: Address, port: number) => Effect.Effect<HostSocket, SocketError>
    /**
     * Takes effect for packets that arrive from now on; established connections keep what they had. `backends`: for
     * `loopback`, further sources to admit; none if omitted.
     */
    readonly admit: (
      socket: HostSocket,
      admission: Admission,
      backends?: ReadonlyArray<Address>
    ) => Effect.Effect<void, SocketError>
    /** Frees the port at once. Closing a closed socket does nothing. */
    readonly close: (socket: HostSocket) => Effect.Effect<void>
    /** All open sockets, adopted ones included. */
    readonly held: Effect.Effect<ReadonlyArray<HostSocket>>
    /**
     * Takes over sockets that are already bound, by this process or another, all or none. They are held from now
     * on, and admit what they did. The first `open` of a socket's port, on its address or on one that it covers,
     * returns it instead of binding. After a failure they still belong to their owner, who has to close them.
     */
    readonly adopt: (sockets: ReadonlyArray<HostSocket>) => Effect.Effect<void, SocketError>
    /** Closes and returns the adopted sockets that were never opened. */
    readonly closeUnopened: Effect.Effect<ReadonlyArray<HostSocket>>
    readonly ephemeral: Effect.Effect<EphemeralPorts>
  }
>()("portmapper/ports/HostSockets") {
  static readonly layerMemory = Layer.unwrap(
    Effect.map(Effect.sync(makeMemoryHost), (host) =>
      Layer.merge(Layer.succeed(HostSockets, host.sockets), Layer.succeed(MemoryHost, host.control))
    )
  )
}

/** The host of the in-memory sockets, for a test to set up and to inspect. */
export class MemoryHost extends Context.Service<
  MemoryHost,
  {
    /** Another process takes a port; conflicts are not checked. */
    readonly take: (protocol: Protocol, host: Address, port: number) => void
    readonly free: (protocol: Protocol, host: Address, port: number) => void
    /** The addresses of this host; `undefined` (as at first) means that every address is. */
    readonly setAddresses: (addresses: ReadonlyArray<Address> | undefined) => void
    readonly setEphemeral: (ports: EphemeralPorts) => void
    /** Sets the protocols that the kernel lacks. */
    readonly setUnsupported: (protocols: ReadonlyArray<Protocol>) => void
    /** Every open socket, as `0.0.0.0:8080/tcp`, with what it admits; sorted. */
    readonly open: () => ReadonlyArray<{ readonly socket: string; readonly admits: Admission }>
  }
>()("portmapper/ports/MemoryHost") {}

/** The state shared by the in-memory sockets and the test that controls them. */
class MemoryWorld {
  readonly opened = new Map<HostSocket, Admission>()
  readonly others: Array<PublishedPort> = []
  addresses: ReadonlyArray<Address> | undefined
  unsupported: ReadonlyArray<Protocol> = []
  ephemeral: EphemeralPorts = { range: dynamicPorts, reserved: [] }
}

function makeMemoryHost() {
  const world = new MemoryWorld()
  return { sockets: memorySockets(world), control: memoryControl(world) }
}

const memorySockets = (world: MemoryWorld): HostSockets["Service"] => {
  const { opened } = world
  const adopted = new AdoptedSockets<HostSocket>()
  const byPort = new Map<number, Set<HostSocket>>()
  let nextFd = 3

  const refusal = ({ protocol, host, port }: PublishedPort): SocketError | undefined => {
    const { addresses, unsupported, others } = world
    if (unsupported.includes(protocol))
      return new SocketError({
        reason: "Unsupported",
        detail: `${protocol.toUpperCase()} is not supported by this kernel`
      })
    if (addresses !== undefined && !addresses.some((own) => own.key === host.key || covers(host, own)))
      return new SocketError({ reason: "NotLocal", detail: "cannot assign requested address" })
    const collides = (other: PublishedPort) =>
      other.protocol === protocol &&
      other.port === port &&
      (covers(other.host, host) || covers(host, other.host))
    if (others.some(collides) || [...(byPort.get(port) ?? [])].some(collides))
      return new SocketError({ reason: "InUse", detail: "address already in use" })
    return undefined
  }

  const hold = (socket: HostSocket) => {
    opened.set(socket, "nothing")
    byPort.set(socket.port, (byPort.get(socket.port) ?? new Set()).add(socket))
  }

  const close = (socket: HostSocket) => {
    opened.delete(socket)
    byPort.get(socket.port)?.delete(socket)
  }

  const step = <A>(name: string, change: () => Effect.Effect<A, SocketError>) =>
    stepped(name, (failure) => new SocketError({ reason: "Failed", detail: failure.message }), change)

  return HostSockets.of({
    open: (protocol, host, port) =>
      step("HostSockets.open", () => {
        const claimed = adopted.claim(protocol, host, port)
        if (claimed !== undefined) return Effect.succeed(claimed)
        const refused = refusal({ protocol, host, port })
        if (refused !== undefined) return Effect.fail(refused)
        const socket: HostSocket = { protocol, host, port, fd: nextFd++ }
        hold(socket)
        return Effect.succeed(socket)
      }),
    admit: (socket, admission) =>
      step("HostSockets.admit", () => {
        if (opened.has(socket)) opened.set(socket, admission)
        return Effect.void
      }),
    close: (socket) => Effect.sync(() => close(socket)),
    held: Effect.sync(() => [...opened.keys()]),
    adopt: (sockets) =>
      step("HostSockets.adopt", () => {
        for (const socket of sockets) {
          if (!opened.has(socket)) hold(socket)
          adopted.add(socket)
        }
        return Effect.void
      }),
    closeUnopened: Effect.sync(() => {
      const left = adopted.rest()
      left.forEach(close)
      return left
    }),
    ephemeral: Effect.sync(() => world.ephemeral)
  })
}

const memoryControl = (world: MemoryWorld): MemoryHost["Service"] =>
  MemoryHost.of({
    take: (protocol, host, port) => void world.others.push({ protocol, host, port }),
    free: (protocol, host, port) => {
      const index = world.others.findIndex(
        (other) => other.protocol === protocol && other.host.key === host.key && other.port === port
      )
      if (index !== -1) world.others.splice(index, 1)
    },
    setAddresses: (own) => {
      world.addresses = own
    },
    setEphemeral: (ports) => {
      world.ephemeral = ports
    },
    setUnsupported: (protocols) => {
      world.unsupported = protocols
    },
    open: () =>
      [...world.opened]
        .map(([socket, admits]) => ({
          socket: frontendText(socket),
          admits
        }))
        .sort((a, b) => (a.socket < b.socket ? -1 : 1))
  })
