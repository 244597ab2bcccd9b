/** A mapping of a port as a driver lists it, with no connection yet. */
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { listedMapping } from "../support/mappings.ts"

export const listed = (frontendPort: number, more: Partial<ListedMapping> = {}): ListedMapping =>
  listedMapping({ frontendPort, connections: 0, ...more })
