/**
 * Runs a script against a target and holds every step against the model. Sequential and synchronous: what it does is
 * decided by the script alone.
 */
import { bindingOf } from "./Arbitraries.ts"
import { modelsKey } from "./Linearizability.ts"
import {
  afterCall,
  afterCrash,
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
import { misheld } from "./ModelModes.ts"
import type { Script, Step } from "./Script.ts"
import type { Call, Ended, Fate, SyncTarget, WireBinding, WireMapAnswer, WireReq } from "./Target.ts"

/** What a target did that it must not do. */
export interface Violation {
  /** The step, counted from 0. */
  readonly step: number
  /** A rule of PROTOCOL by its number, or a word: `held`, `answers`, `total`, … */
  readonly rule: string
  readonly why: string
  /** The calls made up to then, in order, with what they came to. */
  readonly calls: ReadonlyArray<{ readonly call: Call; readonly fate: Fate; readonly ended: Ended }>
}

interface Granted {
  readonly reqs: ReadonlyArray<WireReq>
  readonly labels: Readonly<Record<string, string>>
  readonly owner: string
  readonly bindings: ReadonlyArray<WireBinding>
  readonly left: Set<number>
}

/** The first thing wrong, or `undefined`. */
export const run = (script: Script, host: ModelHost, target: SyncTarget): Violation | undefined => {
  const runner = new Runner(host, target)
  for (const [index, step] of script.entries()) {
    const problem = runner.step(step)
    if (problem !== undefined) return { step: index, ...problem, calls: runner.calls }
  }
  const problem = runner.unmapAll()
  return problem === undefined ? undefined : { step: script.length, ...problem, calls: runner.calls }
}

type Problem = Pick<Violation, "rule" | "why"> | undefined

class Runner {
  readonly calls: Array<{ readonly call: Call; readonly fate: Fate; readonly ended: Ended }> = []
  readonly #host: ModelHost
  readonly #target: SyncTarget
  /** Everything that may be the case; the host tells them apart. */
  #models: ReadonlyArray<Model> = [noMappings]
  readonly #granted: Array<Granted> = []

  constructor(host: ModelHost, target: SyncTarget) {
    this.#host = host
    this.#target = target
  }

  step(step: Step): Problem {
    switch (step.do) {
      case "map":
        return this.#map(step.reqs, step.labels, step.owner, step.fate)
      case "remap": {
        const granted = this.#ofGranted(step.of)
        return granted === undefined ? undefined : this.#remap(granted, step.fate)
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
        return this.#unmap(chosen, granted.owner, step.fate)
      }
      case "unmapOther":
        return this.#unmap([bindingOf(step.req, step.req.FrontendPort || 40000)], "engine", undefined)
      case "wrong":
        return this.#wrong({ method: step.method, value: step.value, owner: "engine" })
      case "activate":
        return this.#call({ method: "Plugin.Activate", value: undefined, owner: "engine" }, undefined).problem
      case "engineStart":
        return this.#engineStart()
      case "restart": {
        const { meanwhile } = step
        const free = meanwhile !== undefined && this.#models.every((model) => isUntaken(model, meanwhile))
        this.#target.world.restart(free ? meanwhile : undefined)
        return this.#settle(
          this.#models.flatMap((model) =>
            afterRestart(free ? { ...model, taken: [...model.taken, meanwhile] } : model)
          )
        )
      }
      case "take": {
        const { frontend } = step
        if (!this.#models.every((model) => mayTake(model, frontend))) return undefined
        this.#target.world.take(frontend)
        return this.#change((model) => ({ ...model, taken: [...model.taken, frontend] }))
      }
      case "free": {
        const taken = this.#models[0]?.taken ?? []
        const frontend = taken[step.of % Math.max(1, taken.length)]
        if (frontend === undefined) return undefined
        this.#target.world.free(frontend)
        return this.#change((model) => ({ ...model, taken: model.taken.filter((each) => each !== frontend) }))
      }
      case "refuse": {
        const { service, on } = step
        this.#target.world.refuse(service, on)
        return this.#change((model) => {
          const others = model.refusing.filter((each) => each !== service)
          return { ...model, refusing: on ? [...others, service] : others }
        })
      }
      case "wait":
        this.#target.world.wait(step.seconds)
        return this.#settle(this.#models.flatMap((model) => afterWait(model, step.seconds)))
    }
  }

  /** At the end everything is given back, and nothing may be left. */
  unmapAll(): Problem {
    for (const service of ["firewall", "store"] as const) this.step({ do: "refuse", service, on: false })
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
    return bindings.length === 0 ? undefined : this.#unmap(bindings, "engine", undefined)
  }

  #map(
    reqs: ReadonlyArray<WireReq>,
    labels: Readonly<Record<string, string>>,
    owner: string,
    fate: Fate
  ): Problem {
    const value = { Reqs: reqs, Labels: labels }
    const { ended, problem } = this.#call({ method: "PortMapper.MapPorts", value, owner }, fate)
    if (problem === undefined && ended.outcome._tag === "Answered") {
      const bindings = (ended.outcome.answer as WireMapAnswer).PortBindings ?? []
      const left = new Set(bindings.keys())
      if (bindings.length > 0) this.#granted.push({ reqs, labels, owner, bindings, left })
    }
    return problem
  }

  #remap({ reqs, labels, owner, bindings }: Granted, fate: Fate): Problem {
    const again = reqs
      .filter((_, index) => bindings[index]?.DiscardReq === false)
      .map((req) => {
        const port = bindings[0]?.FrontendPort ?? 0
        return { ...req, FrontendPort: port, FrontendPortEnd: port }
      })
    if (again.length === 0) return undefined
    const value = { Reqs: again, Labels: labels }
    return this.#call({ method: "PortMapper.MapPorts", value, owner }, fate).problem
  }

  #engineStart(): Problem {
    const activated = this.step({ do: "activate" })
    if (activated !== undefined) return activated
    for (const granted of this.#granted) {
      if (granted.owner !== "engine" || granted.left.size < granted.bindings.length) continue
      const problem = this.#remap(granted, undefined)
      if (problem !== undefined) return problem
    }
    return undefined
  }

  #unmap(bindings: ReadonlyArray<WireBinding>, owner: string, fate: Fate): Problem {
    const value = {
      PortBindings: bindings.map((binding) => ({ ...binding, AllowForwarding: false, NAT: null })),
      Labels: {}
    }
    return this.#call({ method: "PortMapper.UnmapPorts", value, owner }, fate).problem
  }

  #wrong(call: Call): Problem {
    const ended = this.#target.call(call, undefined)
    this.calls.push({ call, fate: undefined, ended })
    return this.#judge((model) => afterWrongCall(model, ended))
  }

  #call(call: Call, wanted: Fate): { readonly ended: Ended; readonly problem: Problem } {
    // One fault at a time: where an undoing fails as well, something is left and no one can help it.
    const faulty = wanted?.how === "fail" && this.#models.some(({ refusing }) => refusing.length > 0)
    const fate = faulty ? undefined : wanted
    const ended = this.#target.call(call, fate)
    this.calls.push({ call, fate, ended })
    const crashed = fate?.how === "crash" && ended.struck
    const verdictOn = crashed ? afterCrash : afterCall
    return { ended, problem: this.#judge((model) => verdictOn(this.#host, model, call, ended)) }
  }

  #judge(verdictOn: (model: Model) => Verdict): Problem {
    const verdicts = this.#models.map(verdictOn)
    const models = verdicts.flatMap((verdict) => (verdict._tag === "May" ? verdict.models : []))
    const [first] = verdicts
    return models.length === 0 && first?._tag === "Wrong" ? first : this.#settle(models)
  }

  #change(change: (model: Model) => Model): Problem {
    this.#models = this.#models.map(change)
    return undefined
  }

  /** Of all that may be the case, keeps what the host bears out. */
  #settle(models: ReadonlyArray<Model>): Problem {
    const held = this.#target.world.held()
    const problems = models.map((model) => misheld(model, held, this.#host.capabilities))
    const borneOut = models.filter((_, index) => problems[index] === undefined)
    if (borneOut.length === 0) return { rule: "held", why: problems[0] ?? "nothing may be the case" }
    this.#models = borneOut.length > 1 ? distinct(borneOut) : borneOut
    return undefined
  }

  #ofGranted(of: number): Granted | undefined {
    return this.#granted[of % Math.max(1, this.#granted.length)]
  }
}

const unmapped = { DiscardReq: false, AllowForwarding: false, NAT: null, Error: null } as const

const distinct = (models: ReadonlyArray<Model>): ReadonlyArray<Model> => [
  ...new Map(models.map((model) => [modelsKey([model]), model] as const)).values()
]
