/** Arbitrary scripts. */
import fc from "fast-check"
import {
  backends4,
  backends6,
  hosts4,
  hosts6,
  labels,
  nearlyMapRequest,
  nearlyUnmapRequest,
  reqs
} from "./Arbitraries.ts"
import type { Script, Step } from "./Script.ts"
import type { Elsewhere, Fate, WireReq } from "./Target.ts"

export interface ScriptOptions {
  /** Default 1. */
  readonly minSteps?: number
  /** Default 12. */
  readonly maxSteps?: number
  /**
   * What the script controls: only calls; or also the host, where other processes take ports and the mapper's
   * process dies; or (the default) all services as well, with injected failures and their own clock.
   */
  readonly reach?: "callers" | "host" | "services"
  /** If false, no step requests SCTP: not every kernel has it. Default true. */
  readonly sctp?: boolean
}

export const scripts = ({
  minSteps = 1,
  maxSteps = 12,
  reach = "services",
  sctp = true
}: ScriptOptions = {}): fc.Arbitrary<Script> => {
  const scriptOf = (step: fc.Arbitrary<Step>): fc.Arbitrary<Script> =>
    fc.array(sctp ? step : step.map(withoutSctp), { minLength: minSteps, maxLength: maxSteps, size: "max" })
  switch (reach) {
    case "callers":
      return sharedSteps.chain((step) =>
        scriptOf(fc.oneof({ weight: 3, arbitrary: anyCallersStep }, { weight: 1, arbitrary: step }))
      )
    case "host":
      return scriptOf(hostStep)
    case "services":
      return fc.oneof(
        { weight: 2, arbitrary: scriptOf(anyStep) },
        { weight: 1, arbitrary: scriptOf(crowdedAnyStep) },
        { weight: 1, arbitrary: sharedAnySteps.chain(scriptOf) }
      )
  }
}

const withoutSctp = (step: Step): Step => {
  const asTcp = (req: WireReq): WireReq => (req.Proto === 132 ? { ...req, Proto: 6 } : req)
  if (step.do === "map") return { ...step, reqs: step.reqs.map(asTcp) }
  return step.do === "unmapOther" ? { ...step, req: asTcp(step.req) } : step
}

const fate: fc.Arbitrary<Fate> = fc.oneof(
  { weight: 6, arbitrary: fc.constant(undefined) },
  {
    weight: 3,
    arbitrary: fc.record({
      how: fc.constantFrom("fail" as const, "interrupt" as const, "crash" as const),
      at: fc.integer({ min: 1, max: 12 })
    })
  },
  { weight: 1, arbitrary: fc.constant({ how: "lose" as const }) }
)

const of = fc.nat({ max: 9 })

/** Of one container in two networks. */
const attachments = ["cni:box/eth0", "cni:box/eth1"]

const mapStep = (fated: fc.Arbitrary<Fate>): fc.Arbitrary<Step> =>
  fc.record({
    do: fc.constant("map" as const),
    reqs,
    labels,
    owner: fc.constantFrom("engine", "engine", "engine", "cli", ...attachments),
    fate: fated
  })

const remapStep = (fated: fc.Arbitrary<Fate>): fc.Arbitrary<Step> =>
  fc.record({ do: fc.constant("remap" as const), of, fate: fated })

const unmapStep = (fated: fc.Arbitrary<Fate>): fc.Arbitrary<Step> =>
  fc.record({
    do: fc.constant("unmap" as const),
    of,
    entry: fc.oneof(fc.constant("all" as const), fc.nat({ max: 3 })),
    fate: fated
  })

const drainStep = (backend: fc.Arbitrary<string>): fc.Arbitrary<Step> =>
  fc.record({
    do: fc.constant("drain" as const),
    backend,
    ports: fc.oneof(
      { weight: 4, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.constant(["8080"]) }
    ),
    drained: fc.oneof(fc.constant(true), fc.boolean()),
    fate
  })

const unmapOther: fc.Arbitrary<Step> = reqs.map((entries) => ({
  do: "unmapOther",
  req: entries[0] as (typeof entries)[number]
}))

const unmapAs: fc.Arbitrary<Step> = fc.record({
  do: fc.constant("unmapAs" as const),
  of,
  backend: fc.constantFrom("another" as const, "any" as const)
})

const wrongStep: fc.Arbitrary<Step> = fc.oneof(
  nearlyMapRequest.map((value): Step => ({ do: "wrong", method: "PortMapper.MapPorts", value })),
  nearlyUnmapRequest.map((value): Step => ({ do: "wrong", method: "PortMapper.UnmapPorts", value }))
)

const elsewhere: fc.Arbitrary<Elsewhere> = fc.record({
  proto: fc.constantFrom(6, 17),
  host: fc.constantFrom(...hosts4, ...hosts6),
  port: fc.oneof(fc.integer({ min: 8080, max: 8083 }), fc.integer({ min: 40000, max: 40007 }))
})

const engineSteps: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.constant<Step>({ do: "activate" }) },
  { weight: 3, arbitrary: fc.constant<Step>({ do: "engineStart" }) }
)

const restartStep = (meanwhile: fc.Arbitrary<Elsewhere | undefined>): fc.Arbitrary<Step> =>
  meanwhile.map((each): Step => ({ do: "restart", meanwhile: each }))

const takeStep = elsewhere.map((frontend): Step => ({ do: "take", frontend }))

const freeStep = of.map((each): Step => ({ do: "free", of: each }))

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 20, arbitrary: mapStep(fate) },
  { weight: 6, arbitrary: remapStep(fate) },
  { weight: 14, arbitrary: unmapStep(fate) },
  { weight: 2, arbitrary: drainStep(fc.constantFrom(...backends4, ...backends6)) },
  { weight: 2, arbitrary: unmapOther },
  { weight: 2, arbitrary: unmapAs },
  { weight: 2, arbitrary: wrongStep },
  { weight: 5, arbitrary: engineSteps },
  { weight: 2, arbitrary: fc.constant<Step>({ do: "otherEngine" }) },
  { weight: 4, arbitrary: restartStep(fc.option(elsewhere, { nil: undefined, freq: 2 })) },
  { weight: 3, arbitrary: takeStep },
  { weight: 2, arbitrary: freeStep },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("refuse" as const),
      service: fc.constantFrom("firewall" as const, "store" as const),
      on: fc.boolean()
    })
  },
  { weight: 3, arbitrary: fc.constantFrom(1, 59, 61).map((seconds): Step => ({ do: "wait", seconds })) }
)

const never = fc.constant<Fate>(undefined)

export const callersStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 10, arbitrary: mapStep(never) },
  { weight: 3, arbitrary: remapStep(never) },
  { weight: 7, arbitrary: unmapStep(never) },
  { weight: 1, arbitrary: unmapOther },
  { weight: 1, arbitrary: unmapAs },
  { weight: 1, arbitrary: wrongStep }
)

const anyCallersStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 9, arbitrary: callersStep },
  { weight: 1, arbitrary: engineSteps }
)

/**
 * A real host reactivates conflicted mappings in its own time, which the model can't follow: no step causes a
 * conflict. A process takes time to start, so restarts are rare.
 */
const hostStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 30, arbitrary: anyCallersStep },
  { weight: 1, arbitrary: restartStep(fc.constant(undefined)) },
  { weight: 4, arbitrary: takeStep },
  { weight: 2, arbitrary: freeStep }
)

/** Port 80 of a backend over TCP. */
const webOn = (
  hosts: ReadonlyArray<string>,
  [first, last]: readonly [first: number, last: number],
  backend: string
): ReadonlyArray<WireReq> =>
  hosts.map((host) => ({
    Proto: 6,
    BackendIP: backend,
    BackendPort: 80,
    FrontendIP: host,
    FrontendPort: first,
    FrontendPortEnd: last
  }))

const crowdedReqs: fc.Arbitrary<ReadonlyArray<WireReq>> = fc
  .tuple(
    fc.constantFrom<readonly [number, number]>(
      [8080, 8080],
      [8080, 8080],
      [8081, 8081],
      [8080, 8081],
      [0, 0]
    ),
    fc.subarray(["0.0.0.0", "192.0.2.1"], { minLength: 1 }),
    fc.constantFrom(...backends4)
  )
  .map(([ports, hosts, backend]) => webOn(hosts, ports, backend))

/** Steps that nearly all request the same. */
const crowded = (fated: fc.Arbitrary<Fate>): fc.Arbitrary<Step> =>
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant("map" as const),
        reqs: crowdedReqs,
        labels: fc.constantFrom<Readonly<Record<string, string>>>(
          {},
          {},
          { "portmapper.allow": "10.0.0.0/8" }
        ),
        owner: fc.constantFrom("engine", ...attachments),
        fate: fated
      })
    },
    { weight: 1, arbitrary: remapStep(fated) },
    { weight: 2, arbitrary: unmapStep(fated) },
    { weight: 1, arbitrary: crowdedReqs.map(([req]): Step => ({ do: "unmapOther", req: req as WireReq })) }
  )

export const crowdedStep = crowded(never)

/** Steps about the same mapping, by callers that disagree on its policy, or on whether it has a host port. */
export const contestedSteps: fc.Arbitrary<fc.Arbitrary<Step>> = fc
  .tuple(
    crowdedReqs,
    fc.oneof(
      { weight: 3, arbitrary: fc.constant({ "portmapper.allow": "10.0.0.0/8" }) },
      { weight: 1, arbitrary: fc.constant({ "portmapper.mode": "routed" }) }
    )
  )
  .map(([reqs, other]) =>
    fc.oneof(
      {
        weight: 4,
        arbitrary: fc
          .constantFrom({}, other)
          .map((labels): Step => ({ do: "map", reqs, labels, owner: "engine", fate: undefined }))
      },
      { weight: 1, arbitrary: unmapStep(never) }
    )
  )

/** The other steps among them. */
const crowdedAnyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: crowded(fate) },
  { weight: 1, arbitrary: anyStep }
)

const web = { "portmapper.share": "web" }
const webFromInside = { ...web, "portmapper.allow": "10.0.0.0/8,2001:db8::/32" }

const replicas = fc.constantFrom("172.17.0.2", "172.17.0.3", "172.17.0.4", "172.17.0.5")

const sharedReqs = (
  hosts: fc.Arbitrary<ReadonlyArray<string>>,
  ports: fc.Arbitrary<readonly [first: number, last: number]>
): fc.Arbitrary<ReadonlyArray<WireReq>> => fc.tuple(hosts, ports, replicas).map((asked) => webOn(...asked))

const sharedHosts = fc.constantFrom<ReadonlyArray<string>>(
  ...[["0.0.0.0"], ["0.0.0.0"], ["192.0.2.1"], ["::"], ["127.0.0.1"]],
  ["0.0.0.0", "192.0.2.1"],
  ["0.0.0.0", "::"]
)

/** What others want of the service's port, or what makes them differ from its backends. */
const otherLabels = fc.constantFrom<Readonly<Record<string, string>>>(
  ...[web, webFromInside, { ...web, "portmapper.balance": "source" }, { ...web, "portmapper.mode": "proxy" }],
  ...[{ "portmapper.share": "api" }, { "portmapper.share": "/web" }, {}, { "portmapper.mode": "routed" }]
)

/** Steps about one service, whose backends meet, and about others that want its port. */
const shared = (
  fated: fc.Arbitrary<Fate>,
  idle: ReadonlyArray<Readonly<Record<string, string>>> = []
): fc.Arbitrary<fc.Arbitrary<Step>> =>
  fc
    .tuple(sharedHosts, fc.constantFrom<Readonly<Record<string, string>>>(web, web, webFromInside))
    .map(([hosts, labels]) => {
      const same = sharedReqs(fc.constant(hosts), fc.constant([8080, 8080]))
      const others = sharedReqs(
        fc.oneof(fc.constant(hosts), sharedHosts),
        fc.constantFrom([8080, 8080] as const, [8080, 8080] as const, [8080, 8081] as const)
      )
      const map = (
        reqs: fc.Arbitrary<ReadonlyArray<WireReq>>,
        wanted: fc.Arbitrary<Readonly<Record<string, string>>>,
        owner: fc.Arbitrary<string>
      ): fc.Arbitrary<Step> =>
        fc.record({ do: fc.constant("map" as const), reqs, labels: wanted, owner, fate: fated })
      return fc.oneof(
        {
          weight: 12,
          arbitrary: map(
            same,
            fc.constantFrom(labels, labels, ...idle.map((more) => ({ ...labels, ...more }))),
            fc.constant("engine")
          )
        },
        { weight: 3, arbitrary: map(others, otherLabels, fc.constantFrom("engine", "engine", "cli")) },
        { weight: 2, arbitrary: map(others, fc.constant(labels), fc.constant("engine")) },
        { weight: 1, arbitrary: map(same, fc.constant(labels), fc.constant("cli")) },
        { weight: 1, arbitrary: remapStep(fated) },
        { weight: 4, arbitrary: unmapStep(fated) }
      )
    })

export const sharedSteps = shared(never)

/** The other steps among them, and processes that take the shared port. */
const sharedAnySteps: fc.Arbitrary<fc.Arbitrary<Step>> = shared(fate, [{ "portmapper.idle": "waiting" }]).map(
  (step) =>
    fc.oneof(
      { weight: 12, arbitrary: step },
      { weight: 3, arbitrary: drainStep(replicas) },
      {
        weight: 2,
        arbitrary: restartStep(
          fc.constantFrom<Elsewhere | undefined>(undefined, { proto: 6, host: "0.0.0.0", port: 8080 })
        )
      },
      { weight: 2, arbitrary: freeStep },
      { weight: 1, arbitrary: fc.constant<Step>({ do: "wait", seconds: 1 }) },
      { weight: 1, arbitrary: anyStep }
    )
)
