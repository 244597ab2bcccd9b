/**
 * An in-memory Engine for tests: containers start, stop and change on command, and every subscriber gets the event.
 */
import { Clock, Context, Effect, Layer, PubSub, Stream } from "effect"
import {
  type Attachment,
  type Container,
  Engine,
  EngineError,
  type EngineEvent,
  type EngineInfo,
  type Network
} from "../../adapters/engine/Engine.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import type { Labels } from "../../src/protocol/PortBinding.ts"
import { network } from "./containers.ts"

export interface NewContainer {
  readonly name: string
  readonly labels?: Readonly<Record<string, string>>
  readonly image?: string
  readonly networkMode?: string
  /** Network name to addresses. Default `{ bridge: ["172.17.0.N"] }`. */
  readonly networks?: Readonly<Record<string, ReadonlyArray<string>>>
}

export class MemoryEngine extends Context.Service<
  MemoryEngine,
  {
    /** Returns the new container's id. */
    readonly run: (container: NewContainer) => Effect.Effect<string>
    /** As `run`, but it does not run yet. */
    readonly create: (container: NewContainer) => Effect.Effect<string>
    /** The container ends, by itself. */
    readonly stop: (name: string) => Effect.Effect<void>
    /** A person stops it: the Engine reports the signal first. */
    readonly stopByHand: (name: string) => Effect.Effect<void>
    /** Uses the given addresses, if any: an Engine assigns new ones at each start. */
    readonly start: (name: string, networks?: NewContainer["networks"]) => Effect.Effect<void>
    readonly rename: (name: string, to: string) => Effect.Effect<void>
    readonly remove: (name: string) => Effect.Effect<void>
    readonly connect: (name: string, network: string, addresses: ReadonlyArray<string>) => Effect.Effect<void>
    readonly disconnect: (name: string, network: string) => Effect.Effect<void>
    /** `unreadable`: the Engine fails to inspect this image, and nothing else. */
    readonly image: (
      name: string,
      labels: Readonly<Record<string, string>>,
      state?: "unreadable"
    ) => Effect.Effect<void>
    /** Breaks the connections of all subscribers, and refuses everyone until `back`. */
    readonly away: Effect.Effect<void>
    readonly back: Effect.Effect<void>
    /** How often a client listed the containers. */
    readonly listed: () => number
    /** Shows a container like this, after an event of this name. */
    readonly alter: (name: string, changed: Partial<Container>, action?: string) => Effect.Effect<void>
    /** The same, but its lists show it only once someone has waited until the container is settled. */
    readonly alterLate: (name: string, changed: Partial<Container>, action: string) => Effect.Effect<void>
    /** The Engine has another id. */
    readonly become: (id: string) => void
    /** The starts and stops that clients asked for, as `start web`. */
    readonly changes: () => ReadonlyArray<string>
    /** What the Engine does when a client starts or stops this container, before it does it. Default: nothing. */
    readonly onChange: (name: string, before: Effect.Effect<void, EngineError>) => void
  }
>()("portmapper/engine/MemoryEngine") {}

export interface MemoryEngineOptions {
  readonly networks?: ReadonlyArray<Network>
  readonly info?: EngineInfo
}

export const layer = (options: MemoryEngineOptions = {}): Layer.Layer<Engine | MemoryEngine> =>
  Layer.effectContext(make(options))

const make = Effect.fnUntraced(function* ({ networks = [], info = defaultInfo }: MemoryEngineOptions) {
  const containers: Array<Container> = []
  const attachmentsOf = attachmentsIn(networks)
  let id = info.id
  const images = new Map<string, Labels>()
  const unreadable = new Set<string>()
  const events = yield* PubSub.unbounded<EngineEvent | "broken">()
  let reachable = true
  let listed = 0
  let made = 0
  let runs = 0
  const runOf = new Map<string, number>()
  const changes: Array<string> = []
  const beforeChange = new Map<string, Effect.Effect<void, EngineError>>()

  const unreachable = new EngineError({
    where: "memory",
    reason: "Unreachable",
    detail: "no process is listening there (is Docker running?)"
  })
  const brokenImage = new EngineError({ where: "memory", reason: "Refused", detail: "the image is broken" })
  const late = new Map<string, () => void>()
  const asked = <A>(answer: () => A) =>
    Effect.suspend(() => (reachable ? Effect.succeed(answer()) : Effect.fail(unreachable)))

  const change = (name: string, action: string, changed: (container: Container) => Container | undefined) =>
    Effect.suspend(() => {
      const index = containers.findIndex((container) => container.name === name)
      const before = containers[index]
      if (before === undefined) return Effect.die(new Error(`no container ${name}`))
      const after = changed(before)
      if (after === undefined) containers.splice(index, 1)
      else containers[index] = after
      return Effect.asVoid(PubSub.publish(events, { _tag: "Changed", id: before.id, action }))
    })

  const add = (
    { name, labels = {}, image = "image", networkMode = "default", networks: given }: NewContainer,
    running: boolean
  ) =>
    Effect.flatMap(Clock.currentTimeMillis, (createdMillis) => {
      made++
      const id = made.toString(16).padStart(64, "0").split("").reverse().join("")
      const attachments = attachmentsOf(given ?? { bridge: [`172.17.0.${made + 1}`] })
      containers.push({
        id,
        name,
        image,
        networkMode,
        running,
        ended: false,
        neverRan: !running,
        createdMillis,
        labels: new Map(Object.entries(labels)),
        attachments: running ? attachments : withoutAddresses(attachments)
      })
      runOf.set(id, running ? ++runs : 0)
      if (!images.has(image)) images.set(image, new Map())
      const action = running ? "start" : "create"
      return Effect.as(PubSub.publish(events, { _tag: "Changed", id, action }), id)
    })

  const begin = (name: string, given?: NewContainer["networks"]) =>
    change(name, "start", (container) => {
      runOf.set(container.id, ++runs)
      return {
        ...container,
        running: true,
        ended: false,
        neverRan: false,
        attachments: attachmentsOf(given ?? { bridge: ["172.17.0.99"] })
      }
    })

  const end = (name: string) =>
    change(name, "die", (container) => ({
      ...container,
      running: false,
      ended: true,
      attachments: withoutAddresses(container.attachments)
    }))

  const signalled = (name: string) =>
    Effect.andThen(
      change(name, "stop", (container) => container),
      end(name)
    )

  /** What a client asked for, of a container that is in another state. */
  const changed = (id: string, action: "start" | "stop", make: (name: string) => Effect.Effect<void>) =>
    Effect.gen(function* () {
      const { name } = (yield* asked(() => containers.find((container) => container.id === id))) ?? {}
      if (name === undefined) return yield* Effect.fail(noContainer)
      changes.push(`${action} ${name}`)
      yield* beforeChange.get(name) ?? Effect.void
      const now = containers.find((container) => container.id === id)
      if (now === undefined) return yield* Effect.fail(noContainer)
      if (now.running !== (action === "start")) yield* make(now.name)
    })

  const engine = Engine.of({
    where: "memory",
    containers: asked(() => {
      listed++
      return [...containers]
    }),
    imageLabels: (image) =>
      Effect.flatMap(
        asked(() => images.get(image)),
        (labels) => (unreadable.has(image) ? Effect.fail(brokenImage) : Effect.succeed(labels))
      ),
    settled: (id) =>
      asked(() => {
        late.get(id)?.()
        late.delete(id)
      }),
    runOf: (id) => asked(() => runOf.get(id)?.toString()),
    start: (id) => changed(id, "start", begin),
    stop: (id) => changed(id, "stop", signalled),
    networks: asked(() => networks),
    info: asked(() => ({ ...info, id })),
    events: Stream.unwrap(
      Effect.gen(function* () {
        const subscription = yield* PubSub.subscribe(events)
        if (!reachable) return Stream.fail(unreachable)
        const changes = Stream.fromSubscription(subscription).pipe(
          Stream.mapEffect((event) => (event === "broken" ? Effect.fail(unreachable) : Effect.succeed(event)))
        )
        return Stream.concat(Stream.succeed<EngineEvent>({ _tag: "Connected" }), changes)
      })
    )
  })

  const control = MemoryEngine.of({
    run: (container) => add(container, true),
    create: (container) => add(container, false),
    stop: end,
    stopByHand: signalled,
    start: begin,
    rename: (name, to) => change(name, "rename", (container) => ({ ...container, name: to })),
    remove: (name) => change(name, "destroy", () => undefined),
    connect: (name, network, addresses) =>
      change(name, "connect", (container) => ({
        ...container,
        attachments: [...container.attachments, ...attachmentsOf({ [network]: addresses })]
      })),
    disconnect: (name, network) =>
      change(name, "disconnect", (container) => ({
        ...container,
        attachments: container.attachments.filter(({ network: { name } }) => name !== network)
      })),
    image: (name, labels, state) =>
      Effect.sync(() => {
        images.set(name, new Map(Object.entries(labels)))
        if (state === "unreadable") unreadable.add(name)
        else unreadable.delete(name)
      }),
    away: Effect.suspend(() => {
      reachable = false
      return Effect.asVoid(PubSub.publish(events, "broken"))
    }),
    back: Effect.sync(() => {
      reachable = true
    }),
    listed: () => listed,
    alter: (name, changed, action = "health_status") =>
      change(name, action, (container) => ({ ...container, ...changed })),
    alterLate: (name, changed, action) =>
      change(name, action, (container) => {
        const { id } = container
        late.set(id, () => {
          const index = containers.findIndex((each) => each.id === id)
          const now = containers[index]
          if (now !== undefined) containers[index] = { ...now, ...changed }
        })
        return container
      }),
    become: (other) => {
      id = other
    },
    changes: () => [...changes],
    onChange: (name, before) => void beforeChange.set(name, before)
  })
  return Context.make(Engine, engine).pipe(Context.add(MemoryEngine, control))
})

const noContainer = new EngineError({ where: "memory", reason: "Refused", detail: "no such container" })

const withoutAddresses = (attachments: ReadonlyArray<Attachment>): ReadonlyArray<Attachment> =>
  attachments.map((attachment) => ({ ...attachment, v4: undefined, v6: undefined }))

const defaultInfo: EngineInfo = { id: "memory", version: "20.10.24", firewall: undefined }

const attachmentsIn =
  (known: ReadonlyArray<Network>) =>
  (networks: Readonly<Record<string, ReadonlyArray<string>>>): ReadonlyArray<Attachment> =>
    Object.entries(networks).map(([name, addresses]) => {
      const parsed = addresses.map(addressUnsafe)
      return {
        network: known.find((one) => one.name === name) ?? network(name),
        gatewayPriority: 0,
        gateways: 1,
        v4: parsed.find(({ family }) => family === 4),
        v6: parsed.find(({ family }) => family === 6)
      }
    })
