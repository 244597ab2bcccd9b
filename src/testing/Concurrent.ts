/**
 * Several clients at once. Each call stops at every step it takes in a service; the script draws which client runs
 * next, so the same seed gives the same interleaving. Some sequential order of the calls must explain their
 * outcomes.
 */
import fc from "fast-check"
import { bindingOf } from "./Arbitraries.ts"
import { linearize, type Overlapping, type TakenBack } from "./Linearizability.ts"
import { type Model, type ModelHost, noMappings } from "./Model.ts"
import { misheld } from "./ModelModes.ts"
import { observe } from "./ModelServices.ts"
import type { Step } from "./Script.ts"
import { callersStep, contestedSteps, crowdedStep, sharedSteps } from "./ScriptArbitrary.ts"
import type { Call, Running, SyncTarget, WireBinding, WireMapAnswer } from "./Target.ts"

/** The steps of each client, and which client runs at each turn; the list `turns` is repeated as needed. */
export interface Interleaving {
  readonly clients: ReadonlyArray<ReadonlyArray<Step>>
  readonly turns: ReadonlyArray<number>
}

/** Gives one step in `oneIn` the fate that its answer is lost. */
const orLost = (step: fc.Arbitrary<Step>, oneIn: number): fc.Arbitrary<Step> =>
  fc
    .tuple(step, fc.nat({ max: oneIn - 1 }))
    .map(([each, luck]) =>
      luck === oneIn - 1 && (each.do === "map" || each.do === "remap")
        ? { ...each, fate: { how: "lose" } }
        : each
    )

const clientsOf = (step: fc.Arbitrary<Step>, oneIn: number) =>
  fc.array(fc.array(orLost(step, oneIn), { minLength: 1, maxLength: 3, size: "max" }), {
    minLength: 2,
    maxLength: 3,
    size: "max"
  })

export const interleavings: fc.Arbitrary<Interleaving> = fc.record({
  clients: fc.oneof(
    clientsOf(fc.oneof(crowdedStep, callersStep.filter(isCall)), 5),
    contestedSteps.chain((step) => clientsOf(step, 2)),
    sharedSteps.chain((step) => clientsOf(step, 4))
  ),
  turns: fc.array(fc.nat({ max: 5 }), { minLength: 1, maxLength: 40, size: "max" })
})

export interface Unexplained {
  readonly seed: number
  readonly interleaving: Interleaving
  readonly history: ReadonlyArray<Overlapping | TakenBack>
  readonly why: string
}

interface UnderWay {
  readonly call: Call
  readonly running: Running
  from: number
  /** The number of the call, once its answer was lost. */
  lost: number | undefined
}

/** A history that no order of the calls explains, or `undefined`. */
export const runTogether = (
  { clients, turns }: Interleaving,
  host: ModelHost,
  target: SyncTarget
): Omit<Unexplained, "seed" | "interleaving"> | undefined => {
  const history: Array<Overlapping | TakenBack> = []
  const granted: Array<ReadonlyArray<WireBinding>> = []
  const todo = clients.map((steps) => [...steps])
  const under: Array<UnderWay | undefined> = clients.map(() => undefined)
  let moment = 0

  const collect = () => {
    for (const [client, each] of under.entries()) {
      if (each === undefined) continue
      const answer = each.running.given()
      if (answer !== undefined && each.lost === undefined) {
        each.lost = history.length
        const ended = { outcome: { _tag: "Answered", answer }, struck: false, lost: each.lost } as const
        history.push({ call: each.call, ended, from: each.from, to: moment++ })
        each.from = moment++
      }
      const ended = each.running.ended()
      if (ended === undefined) continue
      under[client] = undefined
      if (each.lost !== undefined) {
        history.push({ lost: each.lost, from: each.from, to: moment++ })
        continue
      }
      history.push({ call: each.call, ended, from: each.from, to: moment++ })
      if (each.call.method === "PortMapper.MapPorts" && ended.outcome._tag === "Answered") {
        const bindings = (ended.outcome.answer as WireMapAnswer).PortBindings ?? []
        if (bindings.length > 0) granted.push(bindings)
      }
    }
  }

  for (let turn = 0; ; turn++) {
    collect()
    const able = clients.flatMap((_, client) => {
      const running = under[client]?.running
      if (running === undefined) return (todo[client]?.length ?? 0) > 0 ? [client] : []
      return running.waits() ? [client] : []
    })
    if (able.length === 0) break
    const client = able[(turns[turn % turns.length] ?? 0) % able.length] as number
    const call = under[client]
    if (call !== undefined) call.running.proceed()
    else {
      const step = todo[client]?.shift()
      const asked = step === undefined ? undefined : callOf(step, granted)
      const lost = step !== undefined && "fate" in step && step.fate?.how === "lose"
      if (asked !== undefined)
        under[client] = { call: asked, running: target.start(asked, lost), from: moment++, lost: undefined }
    }
  }

  if (under.some((each) => each !== undefined)) return { history, why: "a call never ended" }
  const held = target.world.held()
  const fits = (model: Model) => misheld(model, held, host.capabilities, false) === undefined
  const { problem } = observe(held, new Map(), false)
  if (problem !== undefined) return { history, why: problem }
  if (linearize(host, noMappings, history, fits).length > 0) return undefined
  const why =
    linearize(host, noMappings, history, () => true).length > 0
      ? "no order of the calls leads to what is held"
      : "no order of the calls leads to these answers"
  return { history, why }
}

/** The first interleaving found that no order explains, shrunk. */
export const exploreTogether = (options: {
  readonly seed: number
  readonly runs: number
  readonly host: ModelHost
  readonly target: () => SyncTarget
}): Unexplained | undefined => {
  const { seed, runs, host, target } = options
  const details = fc.check(
    fc.property(interleavings, (each) => runTogether(each, host, target()) === undefined),
    { seed, numRuns: runs, verbose: 0 }
  )
  const [interleaving] = details.counterexample ?? []
  if (interleaving === undefined) return undefined
  const unexplained = runTogether(interleaving, host, target())
  if (unexplained === undefined) throw new Error("the same turns went wrong once and right once")
  return { seed, interleaving, ...unexplained }
}

function isCall(step: Step): boolean {
  return step.do === "map" || step.do === "remap" || step.do === "unmap" || step.do === "unmapOther"
}

/** The call that a step makes now, given what was granted so far. */
const callOf = (step: Step, granted: ReadonlyArray<ReadonlyArray<WireBinding>>): Call | undefined => {
  const unmap = (bindings: ReadonlyArray<WireBinding>): Call => ({
    method: "PortMapper.UnmapPorts",
    value: { PortBindings: bindings, Labels: {} },
    owner: "engine"
  })
  switch (step.do) {
    case "map":
      return {
        method: "PortMapper.MapPorts",
        value: { Reqs: step.reqs, Labels: step.labels },
        owner: step.owner
      }
    case "unmapOther":
      return unmap([bindingOf(step.req, step.req.FrontendPort || 40000)])
    case "remap":
    case "unmap": {
      const bindings = granted[step.of % Math.max(1, granted.length)]?.filter(({ DiscardReq }) => !DiscardReq)
      if (bindings === undefined || bindings.length === 0) return undefined
      if (step.do === "unmap")
        return unmap(
          step.entry === "all" ? bindings : bindings.slice(step.entry % bindings.length).slice(0, 1)
        )
      const Reqs = bindings.map(({ Proto, BackendIP, BackendPort, FrontendIP, FrontendPort }) => ({
        ...{ Proto, BackendIP, BackendPort, FrontendIP, FrontendPort },
        FrontendPortEnd: FrontendPort
      }))
      return { method: "PortMapper.MapPorts", value: { Reqs, Labels: {} }, owner: "engine" }
    }
    default:
      return undefined
  }
}
