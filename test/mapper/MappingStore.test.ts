import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { mappingStoreConformance } from "./mappingStoreConformance.ts"

mappingStoreConformance("the store in memory", () => MappingStore.layerMemory)
