/** What Node itself provides for: the record of mappings on disk, and the lock of its folder. */
export type { MappingFileOptions } from "./MappingFile.ts"
export * as SqliteMappingStore from "./SqliteMappingStore.ts"
export { type LockOptions, lockState, StateLocked } from "./StateLock.ts"
