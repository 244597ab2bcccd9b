/** What `serve` runs in each generation of its process (see `Upgrade`): the mapper, its listeners, and the watch. */
import * as Path from "node:path"
import { Console, Context, Duration, Effect, Layer, Option } from "effect"
import manifest from "../../package.json" with { type: "json" }
import type { Guard } from "../../src/firewall/Firewall.ts"
import { OwnPorts } from "../../src/firewall/OwnPorts.ts"
import { LiveSessions } from "../../src/mapper/MapperContext.ts"
import { isLoopback } from "../../src/protocol/Address.ts"
import { CallObserver } from "../../src/protocol/CallObserver.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { releaseAtEnd } from "../../src/protocol/ReleaseAll.ts"
import { executeHandler, executePath } from "../cni/Served.ts"
import { releaseSession } from "../docker/ConnectionSessions.ts"
import { type Metrics, makeMetrics } from "../docker/Metrics.ts"
import type { ProcessUse } from "../docker/ProcessMetrics.ts"
import type { Page } from "../docker/Routes.ts"
import { announce, type Notify, type PassedSocket, takeNotify, takePassedSockets } from "../docker/Systemd.ts"
import type { Renewals } from "../docker/TlsFiles.ts"
import type { EngineAddress } from "../engine/EngineAddress.ts"
import { type MapperOptions, mapperOn, socketsAndRelay } from "../host/Mapper.ts"
import { libc } from "../linux/Libc.ts"
import { NamespaceBusy } from "../linux/nft/NamespaceLock.ts"
import { boundTo } from "../linux/sockets/SocketAddress.ts"
import { sendUnixDatagram } from "../linux/sockets/UnixDatagram.ts"
import { descriptorLimit, descriptorsInUse } from "../node/Descriptors.ts"
import { StateLocked } from "../node/StateLock.ts"
import { RelayUse } from "../relay/LinuxRelay.ts"
import { type ProcessState, runGenerations, startProcess, stateLocking } from "../upgrade/Upgrade.ts"
import type { ClusterOptions } from "./clusterFlags.ts"
import type { JoinCluster } from "./clustering.ts"
import { noticeEngineStart } from "./engineStart.ts"
import { CommandFailed, failed } from "./failure.ts"
import { processText } from "./holders.ts"
import { keepPassed, serveListeners } from "./listeners.ts"
import { handoverSocket, type ListenerOptions } from "./options.ts"
import type { ServedPage } from "./servePage.ts"
import { exporter } from "./telemetry.ts"
import { following, releaseFilter, watching } from "./watching.ts"

export interface ServingOptions {
  readonly listeners: ListenerOptions
  readonly mapper: MapperOptions
  readonly cluster: { readonly options: ClusterOptions; readonly join: JoinCluster } | undefined
  readonly watch: { readonly engine: EngineAddress; readonly trustImageLabels: boolean } | undefined
  readonly enginePidfile: string | undefined
  readonly takeover: boolean
  readonly grace: Option.Option<Duration.Duration>
  readonly releaseOnExit: boolean
  readonly metrics: "mappings" | "totals"
  /** How `doctor` finds the Engine: `--engine URL`, or nothing. */
  readonly doctorFlags: ReadonlyArray<string>
  /** When to reload the TLS files. */
  readonly renewals: Renewals
}

const defaultGrace = Duration.seconds(10)

/** Returns when a successor serves and the connections relayed here have ended; a stop is an interruption. */
export const serveUntilSucceeded = Effect.fnUntraced(function* (options: ServingOptions) {
  const { stateDirectory, udpIdle } = options.mapper
  const passed = yield* takePassedSockets()
  const notify = yield* takeNotify(sendUnixDatagram)
  const state = yield* startProcess({
    path: Path.join(stateDirectory, handoverSocket),
    takeover: options.takeover,
    grace: Option.getOrElse(options.grace, () => defaultGrace),
    host: (paused) => socketsAndRelay({ udpIdle, paused })
  })
  const metrics = makeMetrics({
    build: { version: manifest.version, node: process.versions.node },
    process: Effect.map(Context.get(state.host, RelayUse), processUse),
    traffic: options.metrics
  })
  const otlp = yield* exporter
  if (otlp !== undefined) yield* otlp.exportMetrics(metrics.registry)
  const unkept = keepPassed(passed, state.handoff)
  return yield* Effect.mapError(
    runGenerations(state, generation({ options, state, unkept, metrics, notify, otlp })),
    (error) =>
      error instanceof StateLocked || error instanceof NamespaceBusy ? nameHolder(options, error) : error
  )
}, Effect.scoped)

const processUse = ({ refused }: Pick<ProcessUse, "refused">): ProcessUse => {
  const { user, system } = process.cpuUsage()
  return {
    openDescriptors: descriptorsInUse(),
    maxDescriptors: descriptorLimit(),
    refused,
    cpuSeconds: (user + system) / 1e6,
    residentBytes: process.memoryUsage.rss(),
    startSeconds: Math.round(performance.timeOrigin) / 1000
  }
}

/** The error of a second plugin: which process holds the state or the table, and how to replace it. */
const nameHolder = ({ takeover }: ServingOptions, busy: StateLocked | NamespaceBusy) => {
  const holder = processText(busy.pid)
  const [fact, remedy] =
    busy._tag === "StateLocked"
      ? [`${busy.directory} is in use by ${holder}`, "add --takeover"]
      : [
          `${holder} keeps the table inet ${busy.table} of this network namespace`,
          "use --takeover with its --state"
        ]
  return new CommandFailed({
    message: `${fact}; stop it first${takeover ? "" : `, or ${remedy} to replace it`}`
  })
}

interface Serving {
  readonly options: ServingOptions
  readonly state: ProcessState
  readonly unkept: ReadonlyArray<PassedSocket>
  readonly metrics: Metrics
  readonly notify: Notify
  readonly otlp: Effect.Success<typeof exporter>
}

const generation = Effect.fnUntraced(function* (serving: Serving) {
  const { options, state, metrics, notify, otlp } = serving
  const { handoff, host, lock } = state
  const passedOn = handoff.connections()
  const cluster = clusterOf(serving)
  const page = yield* pageOf(serving)
  const decorations = [page?.decorate, otlp?.withSteps].filter((decorate) => decorate !== undefined)
  const mapper = yield* Layer.build(
    mapperOn({
      ...{ ...options.mapper, lock, listening: () => ownGuards(serving) },
      decorate:
        decorations.length === 0
          ? undefined
          : (services) => decorations.reduce((decorated, decorate) => decorate(decorated), services),
      cluster: cluster?.wiring,
      ...stateLocking(state)
    }).pipe(Layer.provide(Layer.succeedContext(host)))
  ).pipe(Effect.provideService(LiveSessions, new Set(passedOn.flatMap(({ session }) => session ?? []))))
  const driver = yield* Effect.provideContext(driverOf(serving, page), mapper)
  if (options.enginePidfile !== undefined)
    yield* Effect.provideContext(
      noticeEngineStart(options.enginePidfile, options.mapper.stateDirectory),
      mapper
    )
  if (otlp !== undefined)
    yield* Effect.forkScoped(Effect.provideService(otlp.beforeExports(metrics.refresh), Driver, driver))
  const ownPorts = Context.get(mapper, OwnPorts)
  // Runs once the listeners are closed: a successor has its own guards in place by then.
  yield* Effect.addFinalizer(() =>
    handoff.isLeaving()
      ? Effect.void
      : Effect.catch(ownPorts.release, (error) => Effect.logWarning(error.message))
  )
  const listeners = yield* serveListeners(
    options.listeners,
    {
      handoff,
      renewals: options.renewals,
      pages: {
        "/healthz": Effect.succeed({ contentType: "text/plain; charset=utf-8", body: "ok\n" }),
        "/metrics": withSamples(metrics.page, cluster?.samples),
        ...cluster?.pages
      },
      handlers: { [executePath]: executeHandler }
    },
    serving.unkept
  ).pipe(Effect.provideService(CallObserver, metrics.observe), Effect.provideService(Driver, driver))
  if (page !== undefined) listeners.push(yield* page.serve(driver, handoff))
  const guard = Effect.mapError(ownPorts.guard, (error) =>
    failed("guarding the plugin's own ports", error.message)
  )
  yield* guard
  return Effect.gen(function* () {
    yield* guard
    // The connections to sockets that this process does not serve are closed.
    for (const { place, session } of passedOn)
      if (session !== undefined && !handoff.places().includes(place)) yield* releaseSession(driver, session)
    for (const listener of listeners) yield* Console.error(`listening on ${listener}`)
    const tookOver = state.predecessor !== undefined
    const { isLeaving } = handoff
    yield* announce(notify, `listening on ${listeners.join(", ")}`, { tookOver, isLeaving })
  })
})

/** This generation's place in the cluster, if it has one. A successor, or a predecessor that resumes, keeps the claims. */
const clusterOf = ({ options: { cluster, mapper, releaseOnExit }, state: { handoff } }: Serving) =>
  cluster?.join(cluster.options, {
    ...mapper,
    ending: () => {
      if (handoff.isLeaving() || !handoff.accepts()) return "stay"
      return releaseOnExit ? "give back" : "leave"
    }
  })

const withSamples = (page: Metrics["page"], samples: Effect.Effect<string> = Effect.succeed("")) =>
  Effect.zipWith(page, samples, ({ contentType, body }, more): Page => ({ contentType, body: body + more }))

/** The page, if it is asked for; loaded only then. */
const pageOf = Effect.fnUntraced(function* ({ options, state }: Serving) {
  const { listeners, renewals, doctorFlags } = options
  if (Option.isNone(listeners.page)) return undefined
  const { makePage } = yield* Effect.promise(() => import("./servePage.ts"))
  return yield* makePage(
    {
      ...listeners,
      stateDirectory: options.mapper.stateDirectory,
      address: listeners.page.value,
      renewals,
      doctorFlags
    },
    {
      pid: state.predecessor?.pid,
      use: Effect.map(Context.get(state.host, RelayUse), (relay) => ({ ...processUse(relay), ...relay }))
    }
  )
})

/** Guards for the sockets on loopback addresses; on others a client needs a certificate. */
const ownGuards = ({ state, unkept }: Serving): ReadonlyArray<Guard> =>
  [...state.handoff.listeners(), ...unkept].flatMap(({ fd }) => {
    const bound = boundTo(libc(), fd)
    if (bound === undefined || !isLoopback(bound.address)) return []
    return [{ _tag: "Guard", protocol: "tcp", host: bound.address, port: bound.port }]
  })

/** The driver to serve, with the watch and the release at the end, if requested. */
const driverOf = Effect.fnUntraced(function* ({ options, state }: Serving, page: ServedPage | undefined) {
  const { handoff, predecessor } = state
  const own = page === undefined ? yield* Driver : page.observed(yield* Driver)
  const base = predecessor === undefined ? own : afterwards(own, handoff.mayAccept)
  const { watch, mapper, releaseOnExit } = options
  // Keeps what a successor has by now, or what the predecessor may still take back.
  const unlessLeaving = (effect: Effect.Effect<void>) =>
    Effect.suspend(() => (handoff.isLeaving() || !handoff.accepts() ? Effect.void : effect))
  if (releaseOnExit) yield* Effect.addFinalizer(() => unlessLeaving(releaseAtEnd(base)))
  if (watch !== undefined && releaseOnExit) yield* Effect.addFinalizer(() => unlessLeaving(releaseFilter))
  const { acceptMark, dockerUserMark, stateDirectory } = mapper
  if (watch === undefined) return yield* Effect.provideService(following(stateDirectory), Driver, base)
  return yield* Effect.provideService(
    watching({
      ...watch,
      stateDirectory,
      mark: acceptMark ?? dockerUserMark,
      begin: handoff.mayAccept
    }),
    Driver,
    base
  )
})

/** Delays whatever changes mappings as long as the predecessor may resume serving. */
const afterwards = (
  { mapGroups, drain, ...driver }: Driver["Service"],
  ready: Effect.Effect<void>
): Driver["Service"] => ({
  ...driver,
  mapPorts: (group) => Effect.andThen(ready, driver.mapPorts(group)),
  ...(mapGroups === undefined ? {} : { mapGroups: (groups) => Effect.andThen(ready, mapGroups(groups)) }),
  unmapPorts: (release) => Effect.andThen(ready, driver.unmapPorts(release)),
  ...(drain === undefined ? {} : { drain: (request) => Effect.andThen(ready, drain(request)) })
})
