/** The operations in process, with messages as values or as JSON text. */
export * from "./InMemory.ts"
