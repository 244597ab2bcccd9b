/**
 * Arbitrary requests: valid ones, ones with a single fault, and hostile ones. All shrink: to fewer entries, to
 * simpler addresses and ports, to fewer labels.
 */
import fc from "fast-check"
import { mappingStates } from "../protocol/Driver.ts"
import type {
  DrainRequest,
  ErrorResponse,
  FollowContainerRequest,
  FollowInterfaceRequest,
  ListPortsRequest,
  ListPortsResponse,
  MapGroupsRequest,
  MapGroupsResponse,
  UnmapPortsResponse,
  WireMapping
} from "../protocol/Messages.ts"
import type { WireActivateAnswer, WireBinding, WireMapAnswer, WireMapRequest, WireReq } from "./Target.ts"

/** Few of each, so that requests collide. The simplest first: shrinking goes there. */
export const backends4 = ["172.17.0.2", "172.17.0.3", "127.0.0.1"] as const
export const backends6 = ["fd00::2", "fd00::3", "::1"] as const
export const hosts4 = ["0.0.0.0", "192.0.2.1", "192.0.2.2", "127.0.0.1"] as const
export const hosts6 = ["::", "2001:db8::1", "::1", "fe80::1%eth0"] as const

/** Requested ports: exactly, as a range, or any. */
export const askedPorts: fc.Arbitrary<readonly [first: number, last: number]> = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 8080, max: 8083 }).map((port) => [port, port] as const) },
  { weight: 2, arbitrary: fc.constant([0, 0] as const) },
  {
    weight: 2,
    arbitrary: fc.constantFrom([8081, 8082] as const, [8080, 8083] as const, [8081, 8082] as const)
  }
)

const protocol = fc.constantFrom(6, 6, 6, 17, 132)

/**
 * The entries of a group: each host address once, and one backend for each family of them, as the Engine sends
 * them.
 */
export const reqs: fc.Arbitrary<ReadonlyArray<WireReq>> = fc
  .tuple(
    protocol,
    askedPorts,
    fc.subarray([...hosts4, ""], { minLength: 0, maxLength: 3 }),
    fc.subarray([...hosts6], { maxLength: 2 }),
    fc.constantFrom(...backends4),
    fc.option(fc.constantFrom(...backends6), { nil: undefined, freq: 2 }),
    fc.constantFrom(80, 53)
  )
  .map(([proto, [first, last], by4, by6, backend4, backend6, backendPort]) => {
    const entry = (host: string, backend: string): WireReq => ({
      Proto: proto,
      BackendIP: backend,
      BackendPort: backendPort,
      FrontendIP: host,
      FrontendPort: first,
      FrontendPortEnd: last
    })
    const v4 = by4.includes("0.0.0.0") ? by4.filter((host) => host !== "") : by4
    const entries = [
      ...v4.map((host) => entry(host, backend4)),
      ...by6.map((host) => entry(host, backend6 ?? backend4))
    ]
    return entries.length === 0 ? [entry("0.0.0.0", backend4)] : entries
  })

/** Labels that a mapper accepts: those of other programs, and its own with valid values. */
export const labels: fc.Arbitrary<Readonly<Record<string, string>>> = fc.oneof(
  { weight: 6, arbitrary: fc.constant({}) },
  {
    weight: 2,
    arbitrary: fc.constantFrom<Readonly<Record<string, string>>>(
      { "com.example.app": "web" },
      { "portmapper.allow": "10.0.0.0/8" },
      { "portmapper.allow": "192.0.2.0/24,2001:db8::/32" },
      { "portmapper.udp-idle": "90s" },
      { "portmapper.proxy-protocol": "v2" }
    )
  },
  {
    weight: 2,
    arbitrary: fc
      .constantFrom("proxy", "engine", "routed", "nat", "auto")
      .map((mode) => ({ "portmapper.mode": mode }))
  }
)

/** A request for a group, as `MapPorts` takes it. */
export const mapRequest: fc.Arbitrary<WireMapRequest> = fc.record({
  Reqs: fc.oneof({ weight: 9, arbitrary: reqs }, { weight: 1, arbitrary: fc.constantFrom(null, []) }),
  Labels: fc.option(labels, { nil: null })
})

/** What an Engine sends to unmap an entry: it keeps the addresses and ports of the answer. */
export const bindingOf = (req: WireReq, port: number): WireBinding => ({
  Proto: req.Proto,
  BackendIP: req.BackendIP,
  BackendPort: req.BackendPort,
  FrontendIP: req.FrontendIP,
  FrontendPort: port,
  DiscardReq: false,
  AllowForwarding: false,
  NAT: null,
  Error: null
})

export const unmapRequest = reqs.map((entries) => ({
  PortBindings: entries.map((req) => bindingOf(req, req.FrontendPort === 0 ? 40000 : req.FrontendPort)),
  Labels: {}
}))

/** Several groups, which may conflict with each other. */
export const mapGroupsRequest: fc.Arbitrary<typeof MapGroupsRequest.Encoded> = fc.record({
  Groups: fc.array(mapRequest, { maxLength: 4 })
})

const owners = fc.constantFrom("engine", "cli", "watch", "session", "cni:box/eth0")

export const listPortsRequest: fc.Arbitrary<typeof ListPortsRequest.Encoded> = fc.record({
  OwnedBy: fc.oneof(fc.constant(""), owners),
  Scope: fc.constantFrom("", "host")
})

export const followContainerRequest: fc.Arbitrary<typeof FollowContainerRequest.Encoded> = fc.record({
  Container: fc.constantFrom("web", "0123456789ab"),
  Publish: fc.subarray(["8080:80", "80", "127.0.0.1:9000-9002:9000-9002/udp", "[::]:8443:443"], {
    minLength: 1
  }),
  Labels: labels
})

export const followInterfaceRequest: fc.Arbitrary<typeof FollowInterfaceRequest.Encoded> = fc.record({
  To: fc.subarray(["172.17.0.2", "fd00::2"], { minLength: 1 }),
  Publish: fc.subarray(["eth0:8080:80", "wg0:9000-9002:9000-9002/udp", "br-1.2:53:53/sctp"], {
    minLength: 1
  }),
  Labels: labels
})

export const drainRequest: fc.Arbitrary<typeof DrainRequest.Encoded> = fc.record({
  Backend: fc.constantFrom("web", "0123456789ab", "172.17.0.2", "fd00::2"),
  Ports: fc.subarray(["8080", "9000-9002/udp", "[::1]:53/udp"])
})

const port = fc.oneof(fc.integer({ min: 1, max: 65535 }), fc.constantFrom(8080, 40000))

/** A binding as some plugin may answer: granted, or discarded with or without a reason. */
const answeredBinding: fc.Arbitrary<WireBinding> = fc
  .tuple(
    reqs,
    port,
    fc.boolean(),
    fc.option(fc.constantFrom({ FromAddr: "172.17.0.2", FromPort: 80 }), { nil: null }),
    fc.constantFrom("granted", "granted", "discarded", "discarded for a reason")
  )
  .map(([[req], answered, AllowForwarding, NAT, how]) => ({
    ...bindingOf(req as WireReq, answered),
    AllowForwarding,
    NAT,
    DiscardReq: how !== "granted",
    Error: how === "discarded for a reason" ? "no relay" : null
  }))

export const mapResponse: fc.Arbitrary<WireMapAnswer> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      PortBindings: fc.array(answeredBinding, { maxLength: 4 }),
      Err: fc.constant("")
    })
  },
  { weight: 1, arbitrary: fc.constant({ PortBindings: null, Err: "" }) }
)

export const mapGroupsResponse: fc.Arbitrary<typeof MapGroupsResponse.Encoded> = fc.record({
  Groups: fc.array(mapResponse, { maxLength: 3 }),
  Err: fc.constant("")
})

export const unmapResponse: fc.Arbitrary<typeof UnmapPortsResponse.Encoded> = fc.constant({})

export const activateResponse: fc.Arbitrary<WireActivateAnswer> = fc.record({
  Implements: fc.oneof(fc.constant(["PortMapper"]), fc.subarray(["PortMapper", "VolumeDriver"]))
})

export const errorResponse: fc.Arbitrary<typeof ErrorResponse.Encoded> = fc.record({
  Err: fc.constantFrom("bind for port 8080 failed: port is already allocated", "plugin not found", "")
})

const counter = fc.option(fc.integer({ min: 0, max: 2 ** 53 - 1 }), { nil: null })

const listedMapping: fc.Arbitrary<typeof WireMapping.Encoded> = fc
  .tuple(
    reqs,
    port,
    fc.constantFrom("nat", "proxy", "engine"),
    owners,
    fc.constantFrom(...mappingStates),
    fc.date({ min: new Date(0), max: new Date("2100-01-01"), noInvalidDate: true }),
    fc.oneof(labels, fc.constant(null)),
    fc.tuple(counter, counter, counter, counter),
    fc.constantFrom("", "web", "shop/web", "/web"),
    fc.oneof(
      fc.record({ Allow: counter, Connections: counter, Rate: fc.nat(), RatePerSource: counter }),
      fc.constant(null)
    ),
    fc.oneof(fc.record({ Has: fc.nat(64), Of: fc.constantFrom(64, 1024) }), fc.constant(null)),
    fc.constantFrom("", "web-1/0123456789ab", "0123456789ab"),
    fc.constantFrom("", "address already in use"),
    fc.constantFrom({ Host: "", HostAddress: "" }, { Host: "b", HostAddress: "2001:db8::2" })
  )
  .map(([[req], at, Mode, Owner, State, since, Labels, counts, ...more]) => {
    const [Connections, BytesIn, BytesOut, Open] = counts
    const { Proto, FrontendIP, BackendIP, BackendPort } = req as WireReq
    const [Service, Refused, Slots, Container, Reason, place] = more
    const of = { Proto, FrontendIP, FrontendPort: at, BackendIP, BackendPort, Mode, Owner, State }
    const counted = { Connections, BytesIn, BytesOut }
    return {
      ...of,
      Since: since.toISOString(),
      Labels,
      ...counted,
      Service,
      Refused,
      Slots,
      Open,
      Container,
      Reason,
      ...place
    }
  })

export const listPortsResponse: fc.Arbitrary<typeof ListPortsResponse.Encoded> = fc.record({
  Mappings: fc.array(listedMapping, { maxLength: 4 })
})

/** An answer that is incomplete, has wrong types or is cut short: a client must report it, and continue. */
export const hostileAnswer: fc.Arbitrary<string> = fc.oneof(
  fc
    .tuple(
      fc.oneof<fc.Arbitrary<unknown>[]>(mapResponse, listPortsResponse, activateResponse, errorResponse),
      fc.nat()
    )
    .map(([answer, at]) => {
      const whole = JSON.stringify(answer)
      return whole.slice(0, at % whole.length)
    }),
  fc.constantFrom(
    "",
    "null",
    "[]",
    '"PortBindings"',
    '{"PortBindings":{}}',
    '{"PortBindings":[null]}',
    '{"PortBindings":[{"FrontendPort":-1}]}',
    '{"Mappings":[{"Since":1}]}',
    '{"Implements":"PortMapper"}',
    '{"Err":{}}',
    "<html></html>"
  )
)

/** A label that is refused: an unknown one under our prefix, one that is not for `MapPorts`, or a bad value. */
const wrongLabels = fc.constantFrom<Record<string, unknown>>(
  { "portmapper.interface": "eth0" },
  { "portmapper.mod": "nat" },
  { "portmapper.mode": "NAT" },
  { "portmapper.allow": "" },
  { "portmapper.allow": "10.0.0.0/33" },
  { "portmapper.udp-idle": "0s" },
  { "portmapper.proxy-protocol": "v3" },
  { "portmapper.connections": "0" },
  { "portmapper.rate": "10" },
  { "portmapper.rate": "10/s", "portmapper.mode": "routed" },
  { "portmapper.rate-per-source": "1/s", "portmapper.mode": "nat" },
  { "portmapper.proxy-protocol": "v2", "portmapper.mode": "nat" },
  { "portmapper.wake": "yes" },
  { "portmapper.wake": "on" },
  { "portmapper.wake": "on", "portmapper.mode": "routed", "portmapper.publish": "80" },
  { "portmapper.wake-timeout": "30s" },
  { "portmapper.sleep": "10m" },
  { "portmapper.scope": "planet" },
  { "portmapper.proxy-protocol": "v1", "portmapper.mode": "routed" },
  { app: 1 },
  { app: ["web"] }
)

/** One fault in one entry. */
const wrongFields = fc.constantFrom<Record<string, unknown>>(
  { Proto: 7 },
  { Proto: "tcp" },
  { Proto: 6.5 },
  { BackendIP: "" },
  { BackendIP: "0.0.0.0" },
  { BackendIP: "224.0.0.1" },
  { BackendIP: "172.17.0.256" },
  { BackendIP: "localhost" },
  { BackendPort: 0 },
  { BackendPort: -1 },
  { BackendPort: 65536 },
  { BackendPort: "80" },
  { FrontendIP: "255.255.255.255" },
  { FrontendIP: "ff02::1" },
  { FrontendIP: "2001:db8::1%eth0" },
  { FrontendIP: "10.0.0.1%eth0" },
  { FrontendIP: " 0.0.0.0" },
  { FrontendIP: 0 },
  { FrontendPort: 8082, FrontendPortEnd: 8081 },
  { FrontendPort: 0, FrontendPortEnd: 8081 },
  { FrontendPort: 65536, FrontendPortEnd: 65536 },
  { FrontendPort: 80.5, FrontendPortEnd: 80.5 },
  { FrontendPort: 1e300, FrontendPortEnd: 1e300 },
  { FrontendPort: {}, FrontendPortEnd: [] }
)

const replaceAt = <A>(
  all: ReadonlyArray<A>,
  at: number,
  change: (each: A) => unknown
): ReadonlyArray<unknown> => all.map((each, index) => (index === at % all.length ? change(each) : each))

/** A request for a group with a single fault: it must be refused, whatever the state of the host. */
export const nearlyMapRequest: fc.Arbitrary<unknown> = fc.oneof(
  fc.tuple(reqs, fc.nat({ max: 4 }), wrongFields).map(([entries, at, fields]) => ({
    Reqs: replaceAt(entries, at, (req) => ({ ...req, ...fields })),
    Labels: {}
  })),
  fc.tuple(reqs, wrongLabels).map(([entries, Labels]) => ({ Reqs: entries, Labels })),
  reqs.map((entries) => ({ Reqs: [...entries, ...entries.slice(0, 1)], Labels: null })),
  reqs.map((entries) => ({
    Reqs: [
      ...entries,
      ...entries
        .slice(0, 1)
        .map((req) => ({ ...req, FrontendIP: "203.0.113.9", FrontendPort: 9, FrontendPortEnd: 9 }))
    ]
  })),
  fc.constantFrom<unknown>(
    { Reqs: {} },
    { Reqs: "x" },
    { Reqs: [null] },
    { Reqs: [[]] },
    { Reqs: [{}] },
    { Reqs: [1] },
    [],
    "MapPorts",
    1,
    true
  )
)

export const nearlyUnmapRequest: fc.Arbitrary<unknown> = fc.constantFrom<unknown>(
  { PortBindings: {} },
  { PortBindings: [{}] },
  {
    PortBindings: [
      { Proto: 7, FrontendIP: "0.0.0.0", FrontendPort: 80, BackendIP: "172.17.0.2", BackendPort: 80 }
    ]
  },
  { PortBindings: [{ Proto: 6, FrontendIP: "", FrontendPort: 80, BackendIP: "", BackendPort: 80 }] },
  { PortBindings: [{ Proto: 6, FrontendIP: "0.0.0.0", FrontendPort: 0, BackendIP: "", BackendPort: 0 }] },
  { PortBindings: [{ Proto: 6, FrontendIP: "0.0.0.0", FrontendPort: "80" }] },
  { PortBindings: "x" },
  []
)

/** Any code units, lone surrogates among them. */
const garbage = (maxLength: number): fc.Arbitrary<string> =>
  fc
    .array(fc.oneof(fc.nat({ max: 0x7f }), fc.nat({ max: 0xffff })), { maxLength })
    .map((units) => String.fromCharCode(...units))

/** Text of an attacker or of a bug: it must never cause a crash or a hang. */
export const hostileText: fc.Arbitrary<string> = fc.oneof(
  garbage(200),
  fc.json({ maxDepth: 6 }),
  fc.nat({ max: 600 }).map((depth) => "[".repeat(depth) + "]".repeat(depth)),
  fc.nat({ max: 600 }).map((depth) => '{"Reqs":'.repeat(depth)),
  fc.tuple(mapRequest, fc.nat(), garbage(3)).map(([request, at, text]) => {
    const whole = JSON.stringify(request)
    const cut = at % (whole.length + 1)
    return whole.slice(0, cut) + text + whole.slice(cut + text.length)
  }),
  fc.tuple(nearlyMapRequest, fc.nat()).map(([request, at]) => {
    const whole = JSON.stringify(request)
    return whole.slice(0, at % (whole.length + 1))
  }),
  fc.constantFrom(
    '{"__proto__":{"Reqs":[]}}',
    '{"Reqs":[],"Reqs":[]}',
    '{"Labels":{"__proto__":"x","constructor":"y"}}',
    '{"Reqs":[{"Proto":6e0}]}',
    '{"Reqs":[{"FrontendPort":-0}]}',
    `{"Reqs":[{"FrontendPort":${"9".repeat(400)}}]}`,
    '"\\ud800"',
    "\u0000",
    "\ufeff{}",
    "nul",
    "1e",
    "-"
  )
)
