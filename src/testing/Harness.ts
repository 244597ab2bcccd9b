/**
 * Runs a script against a target and checks every step against the model. Sequential: only the script decides what
 * happens. A run is a generator of demands, so it works with a target that answers at once and with one that takes
 * its time.
 */
import { bindingOf } from "./Arbitraries.ts"
import { modelsKey } from "./Linearizability.ts"
import {
  afterCall,
  afterCrash,
  afterLoss,
  afterRecording,
  afterRestart,
  afterWait,
  afterWrongCall,
  isUntaken,
  type Model,
  type ModelHost,
  mayTake,
  noMappings,
  type Verdict
} from "./Model.ts"
import { frontend } from "./ModelAddress.ts"
import { misheld } from "./ModelModes.ts"
import { observe, type Spread } from "./ModelServices.ts"
import { afterRetries } from "./ModelStandby.ts"
import type { Script, Step } from "./Script.ts"
import type {
  Call,
  Ended,
  Fate,
  HostHoldings,
  Services,
  SyncTarget,
  WireBinding,
  WireMapAnswer,
  WireReq
} from "./Target.ts"

/** A violation of the contract by a target. */
export interface Violation {
  /** The step, counted from 0. */
  readonly step: number
  /** A rule of PROTOCOL by its number, or a word: `held`, `answers`, `total`, … */
  readonly rule: string
  readonly why: string
  /** The calls made so far, in order, with their outcomes. */
  readonly calls: ReadonlyArray<{ readonly call: Call; readonly fate: Fate; readonly ended: Ended }>
}

interface Granted {
  readonly reqs: ReadonlyArray<WireReq>
  readonly labels: Readonly<Record<string, string>>
  readonly owner: string
  readonly bindings: ReadonlyArray<WireBinding>
  readonly left: Set<number>
}

/** What a run needs from its target next; the reply to `call` is an `Ended`, to `held` a `HostHoldings` or a part of one. */
export type Demand =
  | { readonly want: "call"; readonly call: Call; readonly fate: Fate }
  | { readonly want: "held" }
  | { readonly want: "change"; readonly change: <Done>(services: Services<Done>) => Done }

export type Asking<A> = Generator<Demand, A, unknown>

/** The first violation, or `undefined`. */
export const run = (script: Script, host: ModelHost, target: SyncTarget): Violation | undefined => {
  const running = runOn(script, host)
  let next = running.next()
  while (next.done !== true) next = running.next(meet(next.value, target))
  return next.value
}

/** The same for a caller that meets the demands itself. */
export function* runOn(script: Script, host: ModelHost): Asking<Violation | undefined> {
  const runner = new Runner(host)
  for (const [index, step] of script.entries()) {
    const problem = yield* runner.step(step)
    if (problem !== undefined) return { step: index, ...problem, calls: runner.calls }
  }
  const problem = yield* runner.unmapAll()
  return problem === undefined ? undefined : { step: script.length, ...problem, calls: runner.calls }
}

const meet = (demand: Demand, { call, world }: SyncTarget): unknown => {
  switch (demand.want) {
    case "call":
      return call(demand.call, demand.fate)
    case "held":
      return world.held()
    case "change":
      return demand.change(world)
  }
}

function* change(how: <Done>(services: Services<Done>) => Done): Asking<void> {
  yield { want: "change", change: how }
}

type Problem = Pick<Violation, "rule" | "why"> | undefined

class Runner {
  readonly calls: Array<{ readonly call: Call; readonly fate: Fate; readonly ended: Ended }> = []
  readonly #host: ModelHost
  /** All possible states; what the host holds tells them apart. */
  #models: ReadonlyArray<Model> = [noMappings]
  readonly #granted: Array<Granted> = []
  /** The slots of the services as last seen, and whether a failure may have left them unrepaired. */
  #spread: Spread = new Map()
  #unrepaired = false

  constructor(host: ModelHost) {
    this.#host = host
  }

  *step(step: Step): Asking<Problem> {
    switch (step.do) {
      case "map":
        return yield* this.#map(step.reqs, step.labels, step.owner, step.fate)
      case "remap": {
        const granted = this.#ofGranted(step.of)
        return granted === undefined ? undefined : yield* this.#remap(granted, step.fate)
      }
      case "unmap": {
        const granted = this.#ofGranted(step.of)
        if (granted === undefined) return undefined
        const each = step.entry === "all" ? undefined : step.entry % granted.bindings.length
        const chosen = granted.bindings.filter(
          ({ DiscardReq }, index) => !DiscardReq && (each === undefined || index === each)
        )
        const indices = each === undefined ? granted.bindings.keys() : [each]
        for (const index of indices) granted.left.delete(index)
        return yield* this.#unmap(chosen, granted.owner, step.fate)
      }
      case "unmapOther":
        return yield* this.#unmap([bindingOf(step.req, step.req.FrontendPort || 40000)], "engine", undefined)
      case "unmapAs": {
        const granted = this.#ofGranted(step.of)
        if (granted === undefined) return undefined
        // Without port and backend the binding names nothing.
        const bindings = granted.bindings.filter(
          ({ DiscardReq, FrontendPort }) => !DiscardReq && (step.backend === "another" || FrontendPort !== 0)
        )
        const led = bindings.map((binding) => ledAs(binding, step.backend))
        if (step.backend === "any") granted.left.clear()
        return yield* this.#unmap(led, granted.owner, undefined)
      }
      case "drain": {
        const { backend: Backend, ports: Ports, drained, fate } = step
        const method = drained ? "PortMapper.Drain" : "PortMapper.Undrain"
        return (yield* this.#call({ method, value: { Backend, Ports }, owner: "cli" }, fate)).problem
      }
      case "wrong":
        return yield* this.#wrong({ method: step.method, value: step.value, owner: "engine" })
      case "activate":
        return (yield* this.#call(
          { method: "Plugin.Activate", value: undefined, owner: "engine" },
          undefined
        )).problem
      case "engineStart":
        return yield* this.#engineStart()
      case "otherEngine":
        return (
          (yield* this.step({ do: "activate" })) ??
          (yield* this.step(ownPort)) ??
          (yield* this.step({ do: "wait", seconds: 61 }))
        )
      case "restart": {
        const { meanwhile } = step
        const free = meanwhile !== undefined && this.#models.every((model) => isUntaken(model, meanwhile))
        yield* change(({ restart }) => restart(free ? meanwhile : undefined))
        this.#unrepaired = false
        return yield* this.#settle(
          this.#models.flatMap((model) =>
            afterRestart(free ? { ...model, taken: [...model.taken, meanwhile] } : model)
          )
        )
      }
      case "take": {
        const { frontend } = step
        if (!this.#models.every((model) => mayTake(model, frontend))) return undefined
        yield* change(({ take }) => take(frontend))
        return this.#change((model) => ({ ...model, taken: [...model.taken, frontend] }))
      }
      case "free": {
        const taken = this.#models[0]?.taken ?? []
        const frontend = taken[step.of % Math.max(1, taken.length)]
        if (frontend === undefined) return undefined
        yield* change(({ free }) => free(frontend))
        return this.#change((model) => ({ ...model, taken: model.taken.filter((each) => each !== frontend) }))
      }
      case "refuse": {
        const { service, on } = step
        yield* change(({ refuse }) => refuse(service, on))
        return this.#change((model) => {
          const others = model.refusing.filter((each) => each !== service)
          return { ...model, refusing: on ? [...others, service] : others }
        })
      }
      case "wait":
        yield* change(({ wait }) => wait(step.seconds))
        this.#unrepaired = false
        return yield* this.#settle(this.#models.flatMap((model) => afterWait(model, step.seconds)))
    }
  }

  /** Unmaps everything at the end; nothing may be left. */
  *unmapAll(): Asking<Problem> {
    for (const service of this.#models[0]?.refusing ?? [])
      yield* this.step({ do: "refuse", service, on: false })
    const mappings = this.#models[0]?.mappings ?? []
    const bindings = mappings.map((mapping): WireBinding => {
      const colon = mapping.backend.lastIndexOf(":")
      return {
        ...unmapped,
        Proto: mapping.proto,
        FrontendIP: mapping.key,
        FrontendPort: mapping.port,
        BackendIP: mapping.backendIp,
        BackendPort: Number(mapping.backend.slice(colon + 1))
      }
    })
    return bindings.length === 0 ? undefined : yield* this.#unmap(bindings, "engine", undefined)
  }

  *#map(
    reqs: ReadonlyArray<WireReq>,
    labels: Readonly<Record<string, string>>,
    owner: string,
    fate: Fate
  ): Asking<Problem> {
    const value = { Reqs: reqs, Labels: labels }
    const { ended, problem } = yield* this.#call({ method: "PortMapper.MapPorts", value, owner }, fate)
    if (problem === undefined && ended.outcome._tag === "Answered" && ended.lost === undefined) {
      const bindings = (ended.outcome.answer as WireMapAnswer).PortBindings ?? []
      const left = new Set(bindings.keys())
      if (bindings.length > 0) this.#granted.push({ reqs, labels, owner, bindings, left })
    }
    return problem
  }

  *#remap({ reqs, labels, owner, bindings }: Granted, fate: Fate): Asking<Problem> {
    const again = reqs
      .filter((_, index) => bindings[index]?.DiscardReq === false)
      .map((req) => {
        const port = bindings[0]?.FrontendPort ?? 0
        return { ...req, FrontendPort: port, FrontendPortEnd: port }
      })
    if (again.length === 0) return undefined
    const value = { Reqs: again, Labels: labels }
    return (yield* this.#call({ method: "PortMapper.MapPorts", value, owner }, fate)).problem
  }

  *#engineStart(): Asking<Problem> {
    const activated = yield* this.step({ do: "activate" })
    if (activated !== undefined) return activated
    for (const granted of this.#granted) {
      if (granted.owner !== "engine" || granted.left.size < granted.bindings.length) continue
      const problem = yield* this.#remap(granted, undefined)
      if (problem !== undefined) return problem
    }
    return undefined
  }

  *#unmap(bindings: ReadonlyArray<WireBinding>, owner: string, fate: Fate): Asking<Problem> {
    const value = {
      PortBindings: bindings.map((binding) => ({ ...binding, AllowForwarding: false, NAT: null })),
      Labels: {}
    }
    return (yield* this.#call({ method: "PortMapper.UnmapPorts", value, owner }, fate)).problem
  }

  *#wrong(call: Call): Asking<Problem> {
    const ended = (yield { want: "call", call, fate: undefined }) as Ended
    this.calls.push({ call, fate: undefined, ended })
    return yield* this.#judge((model) => afterWrongCall(model, ended))
  }

  *#call(call: Call, wanted: Fate): Asking<{ readonly ended: Ended; readonly problem: Problem }> {
    // One fault at a time: if undoing fails as well, the mapper can't avoid leaving something behind.
    const faulty = wanted?.how === "fail" && this.#models.some(({ refusing }) => refusing.length > 0)
    const fate = faulty ? undefined : wanted
    const ended = (yield { want: "call", call, fate }) as Ended
    this.calls.push({ call, fate, ended })
    const crashed = fate?.how === "crash" && ended.struck
    // A backend joined and left: the others got its slots back, but not each its own.
    if (ended.lost !== undefined) this.#spread = new Map()
    this.#unrepaired = !crashed && (this.#unrepaired || (fate?.how === "fail" && ended.struck))
    const verdictOn = crashed ? afterCrash : afterCall
    const problem = yield* this.#judge((model) => settled(verdictOn(this.#host, model, call, ended), ended))
    return { ended, problem }
  }

  *#judge(verdictOn: (model: Model) => Verdict): Asking<Problem> {
    const verdicts = this.#models.map(verdictOn)
    const models = verdicts.flatMap((verdict) => (verdict._tag === "May" ? verdict.models : []))
    const [first] = verdicts
    return models.length === 0 && first?._tag === "Wrong" ? first : yield* this.#settle(models)
  }

  #change(change: (model: Model) => Model): Problem {
    this.#models = this.#models.map(change)
    return undefined
  }

  /** Keeps the possible states that match what the host holds. */
  *#settle(known: ReadonlyArray<Model>): Asking<Problem> {
    const models = known
      .flatMap((model) => [model, ...afterRetries(model)])
      .flatMap((model) => [model, ...afterRecording(model)])
    const held = (yield { want: "held" }) as Partial<HostHoldings>
    const problems = models.map((model) =>
      misheld(model, held, this.#host.capabilities, this.#unrepaired || model.refusing.length > 0)
    )
    const borneOut = models.filter((_, index) => problems[index] === undefined)
    if (borneOut.length === 0) return { rule: "held", why: problems[0] ?? "nothing may be the case" }
    this.#models = borneOut.length > 1 ? distinct(borneOut) : borneOut
    const failed = this.#unrepaired || borneOut.some(({ refusing }) => refusing.length > 0)
    const { spread, problem } = observe(held, this.#spread, failed)
    this.#spread = spread
    return problem === undefined ? undefined : { rule: "services", why: problem }
  }

  #ofGranted(of: number): Granted | undefined {
    return this.#granted[of % Math.max(1, this.#granted.length)]
  }
}

/** The states after the call's answer was lost, if it was. */
const settled = (verdict: Verdict, { lost }: Ended): Verdict =>
  verdict._tag === "May" && lost !== undefined
    ? { ...verdict, models: verdict.models.flatMap((model) => afterLoss(model, lost)) }
    : verdict

/** A port that only an Engine maps. */
export const ownPort: Step = {
  do: "map",
  reqs: [
    {
      Proto: 6,
      BackendIP: "172.17.0.9",
      BackendPort: 80,
      FrontendIP: "0.0.0.0",
      FrontendPort: 9000,
      FrontendPortEnd: 9000
    }
  ],
  labels: {},
  owner: "engine",
  fate: undefined
}

/** A missing frontend address means the backend's family, so it must be written out where the backend is omitted. */
const ledAs = (binding: WireBinding, backend: "another" | "any"): WireBinding => {
  if (backend === "another") return { ...binding, BackendPort: binding.BackendPort + 1 }
  const { key } = frontend(binding.Proto, binding.FrontendIP, binding.BackendIP)
  return { ...binding, FrontendIP: key, BackendIP: "", BackendPort: 0 }
}

const unmapped = { DiscardReq: false, AllowForwarding: false, NAT: null, Error: null } as const

const distinct = (models: ReadonlyArray<Model>): ReadonlyArray<Model> => [
  ...new Map(models.map((model) => [modelsKey([model]), model] as const)).values()
]
