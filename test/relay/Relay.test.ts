import { Layer } from "effect"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { Relay } from "../../src/relay/Relay.ts"
import { reservePorts } from "../support/ports.ts"
import { relayConformance } from "./relayConformance.ts"
import { linuxRelay } from "./world.ts"

const free = await reservePorts()
relayConformance("Relay in memory", Layer.merge(Relay.layerMemory, HostSockets.layerMemory), free(0))
relayConformance("Relay on Linux", linuxRelay(), free(0))
