/**
 * Mappings that lead to themselves: what the frontend takes in is the backend, so each connection would make another one.
 * Pure; what only the host's addresses or other mappings show is found by the relay, at the loop's first connection.
 */
import { addressUnsafe, covers, isLoopback, isUnspecified } from "../protocol/Address.ts"
import { type Entry, frontendText, type Group } from "../protocol/PortBinding.ts"
import type { Issue } from "../protocol/RequestError.ts"

/** One issue for each entry of a group with an exact port that leads to itself. */
export const selfMappingIssues = ({ entries, ports }: Group): ReadonlyArray<Issue> =>
  entries.flatMap((entry, index) => {
    if (ports._tag !== "Exact" || !leadsToItself(entry, ports.port)) return []
    const { protocol, host, backend } = entry
    const frontend = frontendText(protocol, host, ports.port)
    return [
      {
        path: `Reqs[${index}].BackendPort`,
        value: `${backend.port}`,
        rule: `another port than FrontendPort, since ${frontend} takes in what is sent to ${backend.address.text}: the mapping would lead to itself`
      }
    ]
  })

/** Whether a connection to the backend arrives at the frontend, whatever addresses the host has. */
const leadsToItself = ({ host, backend: { address, port } }: Entry, frontendPort: number): boolean => {
  if (port !== frontendPort) return false
  // Connecting to the unspecified address reaches the loopback address of its family.
  const reached = isUnspecified(address) ? loopback[address.family] : address
  return isUnspecified(host) ? isLoopback(reached) && covers(host, reached) : host.key === reached.key
}

const loopback = { 4: addressUnsafe("127.0.0.1"), 6: addressUnsafe("::1") }
