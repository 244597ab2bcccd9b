import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import {
  type Flow,
  IPS_DST_NAT,
  IPS_SEEN_REPLY,
  NFPROTO_IPV4
} from "../../../adapters/linux/conntrack/ConntrackMessages.ts"
import { staleAmong } from "../../../adapters/linux/conntrack/FlowFrontends.ts"
import type { FlowFrontend } from "../../../src/firewall/Conntrack.ts"
import { addressUnsafe, parseNetwork } from "../../../src/protocol/Address.ts"
import { protocolNumber } from "../../../src/protocol/Protocol.ts"
import { endpoint } from "../../support/groups.ts"

const octets = (text: string) => addressUnsafe(text).octets
const own = octets("192.0.2.1")
const isLocal = (destination: Uint8Array) => destination.every((octet, at) => octet === own[at])

/** Port 8080, which is redirected to 172.17.0.2. */
const frontend = (protocol: "tcp" | "udp", more: Partial<FlowFrontend> = {}): FlowFrontend => ({
  protocol,
  host: addressUnsafe("0.0.0.0"),
  port: 8080,
  backend: endpoint("172.17.0.2:80"),
  allow: undefined,
  narrowed: false,
  ...more
})

/** From 203.0.113.7 to port 8080 of this host, redirected to `to`; `-` if it is not redirected. */
const flow = (protocol: "tcp" | "udp", to: string, more: Partial<Flow["original"]> = {}, seen = 0): Flow => {
  const backend = endpoint(to === "-" ? "192.0.2.1:8080" : to)
  const tuple = { protocol: protocolNumber[protocol] }
  const original = { ...tuple, source: octets("203.0.113.7"), destination: own, sourcePort: 40_000 }
  return {
    isClosed: false,
    isReset: false,
    family: NFPROTO_IPV4,
    original: { ...original, destinationPort: 8080, ...more },
    reply: {
      ...{ ...tuple, source: backend.address.octets, sourcePort: backend.port },
      ...{ destination: original.source, destinationPort: 40_000 }
    },
    status: (to === "-" ? 0 : IPS_DST_NAT) | seen,
    id: 1,
    bytesIn: 0,
    bytesOut: 0
  }
}

const verdict = (at: FlowFrontend, one: Flow) => staleAmong([at], isLocal)(one)
const networks = (text: string) => [Result.getOrThrow(parseNetwork(text))]

describe("a flow to a frontend", () => {
  it("stays where it goes to the frontend's backend", () => {
    for (const protocol of ["tcp", "udp"] as const)
      assert.strictEqual(verdict(frontend(protocol), flow(protocol, "172.17.0.2:80")), undefined)
  })

  it("is stale where it goes to another backend, or to none of UDP's", () => {
    for (const protocol of ["tcp", "udp"] as const) {
      assert.strictEqual(verdict(frontend(protocol), flow(protocol, "172.17.0.3:80")), "stale")
      assert.strictEqual(verdict(frontend(protocol), flow(protocol, "172.17.0.2:81")), "stale")
    }
    assert.strictEqual(
      verdict(frontend("udp", { backend: undefined }), flow("udp", "172.17.0.2:80")),
      "stale"
    )
    assert.strictEqual(
      verdict(frontend("tcp", { backend: undefined }), flow("tcp", "172.17.0.2:80")),
      undefined
    )
  })

  it("of TCP that is not redirected is stale until it was answered, and once it was reset", () => {
    assert.strictEqual(verdict(frontend("tcp"), flow("tcp", "-")), "stale")
    for (const at of [frontend("tcp"), frontend("tcp", { share: "joined" })]) {
      const answered = flow("tcp", "-", {}, IPS_SEEN_REPLY)
      assert.strictEqual(verdict(at, answered), undefined)
      assert.strictEqual(verdict(at, { ...answered, isReset: true }), "stale")
    }
    assert.strictEqual(
      verdict(frontend("tcp"), { ...flow("tcp", "172.17.0.2:80"), isReset: true }),
      undefined
    )
  })

  it("concerns the frontend's protocol, port and local address alone", () => {
    const other = (more: Partial<Flow["original"]>) => flow("tcp", "172.17.0.3:80", more)
    for (const more of [
      { destinationPort: 8081 },
      { destination: octets("192.0.2.2") },
      { destination: octets("127.0.0.1") },
      { source: octets("127.0.0.1") }
    ])
      assert.strictEqual(verdict(frontend("tcp"), other(more)), undefined)
    assert.strictEqual(verdict(frontend("udp"), other({})), undefined)
    assert.strictEqual(verdict(frontend("tcp", { host: addressUnsafe("::") }), other({})), undefined)
    const exact = frontend("tcp", { host: addressUnsafe("192.0.2.1") })
    assert.strictEqual(verdict(exact, other({})), "stale")
    assert.strictEqual(verdict(exact, other({ destination: octets("192.0.2.2") })), undefined)
  })

  it("is refused where a narrowed list leaves its source out, and else stays", () => {
    const narrowed = (allow: string) => frontend("tcp", { narrowed: true, allow: networks(allow) })
    assert.strictEqual(verdict(narrowed("10.0.0.0/8"), flow("tcp", "172.17.0.2:80")), "refused")
    assert.strictEqual(verdict(narrowed("203.0.113.0/24"), flow("tcp", "172.17.0.2:80")), undefined)
    assert.strictEqual(verdict(narrowed("10.0.0.0/8"), flow("tcp", "-")), undefined)
  })

  it("of a service stays with any backend when one joins, and of UDP ends with the one that left", () => {
    const joined = (protocol: "tcp" | "udp") => frontend(protocol, { share: "joined" })
    assert.strictEqual(verdict(joined("tcp"), flow("tcp", "172.17.0.3:80")), undefined)
    assert.strictEqual(verdict(joined("udp"), flow("udp", "172.17.0.3:80")), undefined)
    assert.strictEqual(verdict(joined("udp"), flow("udp", "-")), "stale")
    const left = (protocol: "tcp" | "udp") => frontend(protocol, { share: "left" })
    assert.strictEqual(verdict(left("udp"), flow("udp", "172.17.0.2:80")), "stale")
    assert.strictEqual(verdict(left("udp"), flow("udp", "172.17.0.3:80")), undefined)
    assert.strictEqual(verdict(left("tcp"), flow("tcp", "172.17.0.2:80")), undefined)
  })
})
