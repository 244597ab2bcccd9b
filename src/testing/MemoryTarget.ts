/**
 * The built-in mapper over its in-memory services, run turn by turn: no timers, no promises, thousands of worlds a
 * second.
 */
import { Cause, Clock, Context, Effect, Exit, Layer, Option, References, Scheduler, Scope } from "effect"
import { ByteCounter } from "../firewall/ByteCounter.ts"
import { Conntrack } from "../firewall/Conntrack.ts"
import { Firewall, FirewallError, MemoryFirewall } from "../firewall/Firewall.ts"
import { Backends, MapperConfig } from "../mapper/MapperContext.ts"
import { MappingStore, MemoryStore, StoreError } from "../mapper/MappingStore.ts"
import { Mappings } from "../mapper/model/Mapping.ts"
import { PortMapper } from "../mapper/PortMapper.ts"
import type { Capabilities } from "../mapper/plan/Plan.ts"
import { InjectedFailure, Steps } from "../memory/Steps.ts"
import { type EphemeralPorts, HostSockets, MemoryHost } from "../ports/HostSockets.ts"
import { PortAllocator } from "../ports/PortAllocator.ts"
import { type Address, addressUnsafe } from "../protocol/Address.ts"
import { CurrentOwner, Driver } from "../protocol/Driver.ts"
import { type CallError, call, kindOf, valueBody } from "../protocol/Operations.ts"
import { endpointText, frontendText } from "../protocol/PortBinding.ts"
import { type Protocol, protocolOfNumber } from "../protocol/Protocol.ts"
import { type SlotShare, slotsText } from "../protocol/Slots.ts"
import { MemoryRelay, Relay } from "../relay/Relay.ts"
import { processSockets } from "./ProcessSockets.ts"
import type {
  Call,
  Elsewhere,
  Ended,
  Fate,
  HostHoldings,
  Outcome,
  Refusable,
  Running,
  SyncTarget
} from "./Target.ts"
import { StandingClock, Turns } from "./Turns.ts"

export interface MemoryTargetOptions {
  readonly capabilities: Capabilities
  readonly ephemeral: EphemeralPorts
  /** Wraps the mapper: to test another driver, or one with a fault. */
  readonly wrap?: (driver: Driver["Service"]) => Driver["Service"]
}

type Kernel =
  | HostSockets
  | MemoryHost
  | Firewall
  | MemoryFirewall
  | Conntrack
  | ByteCounter
  | MappingStore
  | MemoryStore
type Incarnation = Driver | MemoryRelay

/** A fresh world with a mapper in it. */
export const memoryTarget = (options: MemoryTargetOptions): SyncTarget => {
  const turns = new Turns()
  const clock = new StandingClock(turns)
  const base = Context.mergeAll(
    Context.make(Scheduler.Scheduler, turns as Scheduler.Scheduler),
    Context.make(Clock.Clock, clock as Clock.Clock),
    Context.make(References.MinimumLogLevel, "None")
  )

  const now = <A, E>(effect: Effect.Effect<A, E>): A => {
    const fiber = Effect.runForkWith(base)(effect)
    turns.flush()
    const exit = fiber.pollUnsafe()
    if (exit === undefined) throw new Error("the world does not answer at once")
    if (Exit.isFailure(exit)) throw new Error(Cause.pretty(exit.cause))
    return exit.value
  }

  const scope = Scope.makeUnsafe()
  const kernel: Context.Context<Kernel> = now(Layer.buildWithScope(kernelLayer, scope))
  const host = Context.get(kernel, MemoryHost)
  const firewall = Context.get(kernel, MemoryFirewall)
  const store = Context.get(kernel, MemoryStore)
  const { service: ownSockets, closeAll } = processSockets(Context.get(kernel, HostSockets))
  host.setEphemeral(options.ephemeral)

  const live = (): Context.Context<Incarnation> =>
    now(
      Layer.buildWithScope(
        lifeLayer(options).pipe(
          Layer.provide(Layer.succeedContext(Context.add(kernel, HostSockets, ownSockets)))
        ),
        scope
      )
    )

  let life = live()
  let context = contextOf(base, life, options)

  const restart = (meanwhile?: Elsewhere) => {
    for (const service of ["firewall", "store"] as const) refuse(service, false, firewall, store)
    clock.forgetAll()
    now(closeAll)
    if (meanwhile !== undefined) host.take(...frontendOf(meanwhile))
    life = live()
    context = contextOf(base, life, options)
  }

  const start = (
    asked: Call,
    steps: (step: string) => Effect.Effect<void, InjectedFailure>,
    lost: boolean,
    /** Writes the answer: takes as long as the write does. */
    writing: Effect.Effect<void> = Effect.void
  ) => {
    let answered: Outcome | undefined
    let given: unknown
    const answering = Effect.flatMap(call(asked.method, valueBody(asked.value)), (answer) =>
      lost
        ? Effect.suspend(() => {
            given = answer
            return Effect.andThen(writing, Effect.interrupt)
          })
        : Effect.map(writing, () => {
            answered = { _tag: "Answered", answer }
          })
    )
    const fiber = Effect.runForkWith(
      Context.add(Context.add(context, Steps, steps), CurrentOwner, asked.owner)
    )(Effect.scoped(answering))
    return {
      fiber,
      given: () => given,
      outcome: (): Outcome | undefined => {
        const exit = fiber.pollUnsafe()
        return exit === undefined ? undefined : (answered ?? failureOf(exit))
      }
    }
  }

  const callAlone = (asked: Call, fate: Fate): Ended => {
    let step = 0
    let struck = false
    let at: { readonly at?: string } = {}
    let paused: (() => void) | undefined
    const pass = (name: string): Effect.Effect<void, InjectedFailure> => {
      if (fate === undefined || fate.how === "lose" || ++step !== fate.at) return Effect.void
      struck = true
      at = { at: name }
      return fate.how === "fail"
        ? Effect.fail(new InjectedFailure({ step: name }))
        : Effect.callback((resume) => {
            paused = () => resume(Effect.void)
          })
    }
    const { fiber, outcome, given } = start(asked, pass, fate?.how === "lose")
    turns.flush()
    const answer = given()
    if (answer !== undefined) return { outcome: { _tag: "Answered", answer }, struck, lost: 0 }
    if (paused !== undefined && fate?.how === "crash") {
      restart()
      return { outcome: { _tag: "Unanswered" }, struck, ...at }
    }
    if (paused !== undefined) {
      fiber.interruptUnsafe()
      turns.flush()
      paused()
      turns.flush()
    }
    return { outcome: outcome() ?? { _tag: "Hung" }, struck, ...at }
  }

  const startPaused = (asked: Call, lost = false): Running => {
    /** A call may take several steps at once. */
    const paused: Array<() => void> = []
    let interrupted = false
    const pause: Effect.Effect<void> = Effect.callback((go) => {
      paused.push(() => go(Effect.void))
    })
    const { fiber, outcome, given } = start(asked, () => pause, lost, pause)
    turns.flush()
    return {
      given,
      waits: () => paused.length > 0 && outcome() === undefined,
      proceed: () => {
        paused.shift()?.()
        turns.flush()
      },
      interrupt: () => {
        interrupted = true
        fiber.interruptUnsafe()
        turns.flush()
      },
      ended: () => {
        const ended = outcome()
        return ended === undefined ? undefined : { outcome: ended, struck: interrupted }
      }
    }
  }

  return {
    call: callAlone,
    start: startPaused,
    world: {
      held: () => heldOf(host, firewall, store, life, now),
      take: (frontend) => host.take(...frontendOf(frontend)),
      free: (frontend) => host.free(...frontendOf(frontend)),
      refuse: (service, on) => refuse(service, on, firewall, store),
      wait: (seconds) => clock.advance(seconds * 1000),
      restart
    }
  }
}

/** What survives the mapper's process. */
const kernelLayer = Layer.mergeAll(
  HostSockets.layerMemory,
  Firewall.layerMemory,
  Conntrack.layerMemory,
  ByteCounter.layerMemory,
  MappingStore.layerMemory
)

const lifeLayer = ({ capabilities }: MemoryTargetOptions) =>
  PortMapper.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(
        Mappings.layer,
        PortAllocator.layer(),
        Relay.layerMemory,
        Backends.layerUnknown,
        ByteCounter.layerNone,
        Layer.succeed(MapperConfig, capabilities)
      )
    )
  )

const contextOf = (
  base: Context.Context<never>,
  life: Context.Context<Incarnation>,
  options: MemoryTargetOptions
) => {
  const driver = Context.get(life, Driver)
  return Context.merge(base, Context.make(Driver, options.wrap === undefined ? driver : options.wrap(driver)))
}

const failureOf = (exit: Exit.Exit<unknown, CallError>): Outcome => {
  if (Exit.isSuccess(exit)) return { _tag: "Broken", text: "it succeeded without an answer" }
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  if (error !== undefined) return { _tag: "Refused", fault: kindOf(error), text: error.message }
  return Cause.hasInterruptsOnly(exit.cause)
    ? { _tag: "Unanswered" }
    : { _tag: "Broken", text: Cause.pretty(exit.cause) }
}

const heldOf = (
  host: MemoryHost["Service"],
  firewall: MemoryFirewall["Service"],
  store: MemoryStore["Service"],
  life: Context.Context<Incarnation>,
  now: <A, E>(effect: Effect.Effect<A, E>) => A
): HostHoldings => {
  const { listPorts } = Context.get(life, Driver)
  return {
    sockets: host.open().map(({ socket }) => socket),
    rules: firewall.rules(),
    routes: Context.get(life, MemoryRelay).routes(),
    stored: store
      .records()
      .map(
        ({ mapping: { protocol, host: address, port, backend, mode, share, drained }, state }) =>
          `${whereText(protocol, address, port, mode)} -> ${endpointText(backend)} ${mode} ${state}${drained ? " drained" : ""}${shareText(share)}`
      )
      .sort(),
    listed: (listPorts === undefined ? [] : now(listPorts))
      .map(({ protocol, frontendIp, frontendPort, backendIp, backendPort, mode, state }) => {
        const backend = { address: addressUnsafe(backendIp), port: backendPort }
        const where = whereText(protocolUnsafe(protocol), addressUnsafe(frontendIp), frontendPort, mode)
        return `${where} -> ${endpointText(backend)} ${mode} ${state}`
      })
      .sort()
  }
}

const shareText = (share: SlotShare | undefined): string =>
  share === undefined ? "" : ` slots ${slotsText(share.slots)} of ${share.size} by ${share.balance}`

/** A mapping without a host port is identified by its backend alone. */
const whereText = (protocol: Protocol, host: Address, port: number, mode: string): string =>
  mode === "routed" ? protocol : frontendText({ protocol, host, port })

const refuse = (
  service: Refusable,
  on: boolean,
  firewall: MemoryFirewall["Service"],
  store: MemoryStore["Service"]
): void => {
  const operation = "changing anything"
  if (service === "firewall")
    firewall.refuse(on ? new FirewallError({ reason: "Busy", operation, detail: "no buffers" }) : undefined)
  else store.refuse(on ? new StoreError({ reason: "Full", operation, detail: "no space" }) : undefined)
}

const frontendOf = ({ proto, host, port }: Elsewhere) =>
  [protocolUnsafe(proto), addressUnsafe(host), port] as const

const protocolUnsafe = (number: number): Protocol => {
  const protocol = protocolOfNumber(number)
  if (protocol === undefined) throw new Error(`${number} is no protocol with ports`)
  return protocol
}
