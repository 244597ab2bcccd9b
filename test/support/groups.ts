/** Groups and releases in short notation. */
import { addressUnsafe, unspecified } from "../../src/protocol/Address.ts"
import type {
  Endpoint,
  Entry,
  Group,
  PortBinding,
  PortRequest,
  Release,
  ReleasedBinding
} from "../../src/protocol/PortBinding.ts"
import { endpointText, frontendText } from "../../src/protocol/PortBinding.ts"
import type { Protocol } from "../../src/protocol/Protocol.ts"

/** `tcp 0.0.0.0 172.17.0.2:80`; a frontend of `-` has no address. */
export const entry = (text: string): Entry => {
  const [protocol, host, backend] = text.split(" ") as [Protocol, string, string]
  const to = endpoint(backend)
  return {
    protocol,
    host: host === "-" ? unspecified(to.address.family) : addressUnsafe(host),
    requestedAddress: host === "-" ? "" : host,
    backend: to
  }
}

export const endpoint = (text: string): Endpoint => {
  const colon = text.lastIndexOf(":")
  return {
    address: addressUnsafe(text.slice(0, colon).replace(/^\[|\]$/g, "")),
    port: Number(text.slice(colon + 1))
  }
}

/** `8080` exact, `8000-8010` a range, `0` ephemeral. */
export const ports = (text: string): PortRequest => {
  if (text === "0") return { _tag: "Ephemeral" }
  const [first, last] = text.split("-").map(Number) as [number, number | undefined]
  return last === undefined ? { _tag: "Exact", port: first } : { _tag: "Range", first, last }
}

export const group = (
  port: string,
  entries: ReadonlyArray<string>,
  labels: Record<string, string> = {}
): Group => ({
  entries: entries.map(entry),
  ports: ports(port),
  labels: new Map(Object.entries(labels))
})

/** Every kind of frontend on one port: redirected, guarded, and relayed alone. */
export const everything = group("8080", [
  "tcp 10.99.0.1 172.17.0.2:80",
  "tcp 0.0.0.0 172.17.0.2:80",
  "tcp 127.0.0.1 172.17.0.2:80",
  "tcp :: 172.17.0.2:80",
  "udp 0.0.0.0 172.17.0.2:80"
])

/** The release of these bindings, as an Engine requests it. */
export const releaseOf = (bindings: ReadonlyArray<PortBinding>): Release => ({
  bindings: bindings
    .filter(({ discarded }) => discarded === undefined)
    .map(
      ({ entry: { protocol, host, backend }, port }): ReleasedBinding => ({ protocol, host, port, backend })
    ),
  labels: new Map()
})

/** `0.0.0.0:8080/tcp -> 172.17.0.2:80` and the other fields of the answer. */
export const bindingText = ({ entry: { protocol, host, backend }, port, ...answer }: PortBinding): string => {
  const notes = [
    answer.allowForwarding ? "forward" : undefined,
    answer.nat === undefined ? undefined : `nat ${answer.nat.address?.text ?? ""}:${answer.nat.port}`,
    answer.discarded === undefined ? undefined : `discarded: ${answer.discarded}`
  ].filter((note) => note !== undefined)
  return [`${frontendText(protocol, host, port)} -> ${endpointText(backend)}`, ...notes].join(", ")
}
