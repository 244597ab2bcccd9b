/** What Node itself provides for: the record of mappings on disk, and the lock of its folder. */
export * as SqliteMappingStore from "./SqliteMappingStore.ts"
export { lockState, StateLocked } from "./StateLock.ts"
