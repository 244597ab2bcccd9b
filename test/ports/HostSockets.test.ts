import { HostSockets } from "../../src/ports/HostSockets.ts"
import { hostSocketsConformance } from "./hostSocketsConformance.ts"

hostSocketsConformance("HostSockets in memory", HostSockets.layerMemory)
