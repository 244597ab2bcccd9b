import { Layer } from "effect"
import { HostSockets } from "../../src/ports/HostSockets.ts"
import { Relay } from "../../src/relay/Relay.ts"
import { relayConformance } from "./relayConformance.ts"
import { linuxRelay } from "./world.ts"

relayConformance("Relay in memory", Layer.merge(Relay.layerMemory, HostSockets.layerMemory), 23000)
relayConformance("Relay on Linux", linuxRelay(), 23010)
