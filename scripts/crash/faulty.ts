/**
 * The plugin as `portmapper serve` runs it in `nat` mode, from the same layers, over services and system calls that
 * fail at random: `node faulty.ts serve --socket PATH --state DIR --ephemeral FIRST-LAST --seed N`. See `Faults`.
 */
import { dirname } from "node:path"
import { parseArgs } from "node:util"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Layer, Option, Result } from "effect"
import { loggingLayer } from "../../adapters/cli/logging.ts"
import { serveUnix } from "../../adapters/docker/PluginSocket.ts"
import * as LinuxByteCounter from "../../adapters/linux/conntrack/ByteCounter.ts"
import * as LinuxConntrack from "../../adapters/linux/conntrack/Conntrack.ts"
import { libc } from "../../adapters/linux/Libc.ts"
import * as NftFirewall from "../../adapters/linux/nft/NftFirewall.ts"
import * as LinuxSockets from "../../adapters/linux/sockets/LinuxSockets.ts"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { lockState } from "../../adapters/node/StateLock.ts"
import * as LinuxRelay from "../../adapters/relay/LinuxRelay.ts"
import { Conntrack } from "../../src/firewall/Conntrack.ts"
import { Firewall } from "../../src/firewall/Firewall.ts"
import { Backends, MapperConfig } from "../../src/mapper/MapperContext.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { Mappings } from "../../src/mapper/model/Mapping.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { PortAllocator } from "../../src/ports/PortAllocator.ts"
import { parsePortRange } from "../../src/protocol/PortRange.ts"
import { relayedProtocols } from "../../src/relay/Relay.ts"
import { Random } from "../../src/testing/Random.ts"
import {
  Faults,
  failingConntrack,
  failingFirewall,
  failingLibc,
  failingSockets,
  failingStore
} from "./Faults.ts"

/** Failure rates of calls to services, and of system calls, of which each service call makes many. */
const serviceRate = 0.05
const systemCallRate = 0.01

const { values } = parseArgs({
  allowPositionals: true,
  options: {
    socket: { type: "string", default: "" },
    state: { type: "string", default: "" },
    ephemeral: { type: "string", default: "" },
    seed: { type: "string", default: "0" }
  }
})

const random = new Random(Number(values.seed))
const folder = dirname(values.state)
const faults = new Faults(folder, random, serviceRate)
const failingCalls = () => failingLibc(libc(), new Faults(folder, random, systemCallRate))

const services = Layer.mergeAll(
  Mappings.layer,
  PortAllocator.layer({ ephemeral: Result.getOrUndefined(parsePortRange(values.ephemeral)) }),
  Layer.provideMerge(LinuxConntrack.layer, NftFirewall.layer({}, failingCalls)),
  LinuxByteCounter.layer,
  LinuxRelay.layer(),
  SqliteMappingStore.layer(values.state),
  Backends.layerUnknown,
  Layer.succeed(MapperConfig, {
    defaultMode: "nat",
    natUnavailable: undefined,
    marksAccepted: false,
    ipv6: true,
    relayed: relayedProtocols
  })
).pipe(
  Layer.updateService(HostSockets, failingSockets(faults)),
  Layer.provideMerge(LinuxSockets.layer(failingCalls))
)

const mapper = PortMapper.layer.pipe(
  Layer.updateService(Firewall, failingFirewall(faults)),
  Layer.updateService(Conntrack, failingConntrack(faults)),
  Layer.updateService(MappingStore, failingStore(faults)),
  Layer.provide(services)
)

Effect.gen(function* () {
  yield* lockState(values.state)
  yield* Effect.provide(
    Effect.gen(function* () {
      yield* serveUnix(values.socket)
      yield* Console.error(`listening on ${values.socket}`)
      return yield* Effect.never
    }),
    mapper
  )
}).pipe(
  Effect.scoped,
  Effect.tapError(({ message }) => Console.error(`portmapper: ${message}`)),
  Effect.provide(loggingLayer({ logFormat: "logfmt", logLevel: Option.none() })),
  (program) => NodeRuntime.runMain(program, { disableErrorReporting: true })
)
