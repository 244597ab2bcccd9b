/** Mappings in short notation, and as text again. */

import type { Stored, StoredState } from "../../src/mapper/MappingStore.ts"
import type { Mapping } from "../../src/mapper/model/Mapping.ts"
import type { ListedMapping } from "../../src/protocol/Driver.ts"
import { endpointText, frontendText } from "../../src/protocol/PortBinding.ts"
import { entry } from "./groups.ts"

/** `tcp 0.0.0.0 172.17.0.2:80` on a port. */
export const mapping = (text: string, port: number, rest: Partial<Mapping> = {}): Mapping => ({
  ...entry(text),
  port,
  mode: "nat",
  labels: new Map(),
  owner: "engine",
  epoch: 0,
  sinceMillis: 1_700_000_000_000,
  container: undefined,
  ...rest
})

/** `0.0.0.0:8080/tcp -> 172.17.0.2:80 answered`, sorted. */
export const storedTexts = (stored: ReadonlyArray<Stored>): ReadonlyArray<string> =>
  stored
    .map(
      ({ mapping: { protocol, host, port, backend }, state }) =>
        `${frontendText({ protocol, host, port })} -> ${endpointText(backend)} ${state}`
    )
    .sort()

/** All of them in one state, to put into a store. */
export const records = (mappings: ReadonlyArray<Mapping>, state: StoredState): ReadonlyArray<Stored> =>
  mappings.map((mapping) => ({ mapping, state }))

/** A mapping as a driver lists it. */
export const listedMapping = (more: Partial<ListedMapping> = {}): ListedMapping => ({
  protocol: 6,
  frontendIp: "0.0.0.0",
  frontendPort: 8080,
  backendIp: "172.17.0.2",
  backendPort: 80,
  mode: "nat",
  owner: "engine",
  state: "live",
  sinceMillis: 0,
  labels: new Map(),
  connections: undefined,
  bytesIn: undefined,
  bytesOut: undefined,
  ...more
})
