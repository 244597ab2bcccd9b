/** Adapters on Node's own modules: the store of mappings on disk, and the lock on its directory. */
export type { MappingFileOptions } from "./MappingFile.ts"
export * as SqliteMappingStore from "./SqliteMappingStore.ts"
export { type LockOptions, lockState, type StateLock, StateLocked } from "./StateLock.ts"
