/** Prints thousands of ports in a few lines: neighbours that differ only in their port form one range. */
import { hostText } from "../../src/protocol/Address.ts"
import type { Endpoint, PublishedPort } from "../../src/protocol/PortBinding.ts"
import { asleepText, isRestingPlace } from "../../src/protocol/RestingPlace.ts"

/** `note` is printed after the ports; lines with different notes are not joined. `backend` is printed if given. */
export interface PortLine extends PublishedPort {
  readonly backend?: Endpoint | undefined
  /** What is printed for a backend without an address. */
  readonly container?: string | undefined
  readonly note?: string | undefined
}

/** `0.0.0.0:8000-8009/tcp -> 172.17.0.2:80-89`, in the order of each range's first port. */
export const portLines = (ports: ReadonlyArray<PortLine>): ReadonlyArray<string> => {
  const runs: Array<Run> = []
  const open = new Map<string, Run>()
  for (const line of ports) {
    const { protocol, host, backend, note } = line
    const key = JSON.stringify([protocol, host.text, backend?.address.text, note])
    const run = open.get(key)
    if (run !== undefined && continues(run, line)) run.length++
    else {
      const begun = { first: line, length: 1 }
      runs.push(begun)
      open.set(key, begun)
    }
  }
  return runs.map(runText)
}

interface Run {
  readonly first: PortLine
  length: number
}

const continues = ({ first, length }: Run, { port, backend }: PortLine): boolean =>
  port === first.port + length && backend?.port === (first.backend && first.backend.port + length)

const runText = ({ first, length }: Run): string => {
  const { protocol, host, port, backend, container, note } = first
  // Mode `routed` has no host port.
  const frontend = port === 0 ? `-/${protocol}` : `${hostText(host)}:${range(port, length)}/${protocol}`
  const to = backend === undefined ? "" : ` -> ${backendText(backend, container, length)}`
  return `${frontend}${to}${note ?? ""}`
}

const backendText = ({ address, port }: Endpoint, container: string | undefined, length: number): string =>
  isRestingPlace(address) ? asleepText(container) : `${hostText(address)}:${range(port, length)}`

const range = (first: number, length: number): string =>
  length === 1 ? `${first}` : `${first}-${first + length - 1}`
