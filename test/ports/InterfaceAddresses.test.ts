import { InterfaceAddresses, MemoryInterfaces } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { interfaceAddressesConformance } from "./interfaceAddressesConformance.ts"

interfaceAddressesConformance("InterfaceAddresses in memory", InterfaceAddresses.layerMemory, {
  add: (name, addresses) => MemoryInterfaces.use(({ set }) => set(name, addresses.map(addressUnsafe))),
  remove: (name) => MemoryInterfaces.use((interfaces) => interfaces.remove(name))
})
