/**
 * The contract of a port mapper in its plainest form: a list of mappings, and for each call the states it may lead
 * to. Where several outcomes are possible (an interrupted call) the result has all of them; where the mapper may
 * choose (which ephemeral port) the model checks the answer and does not predict it.
 *
 * Source: docs/PROTOCOL.md, rules 1 to 13; docs/decisions 4 to 7, 11, 13 and 15.
 */
import { conflict, endpointTextOf, type Frontend, frontend, frontendTextOf } from "./ModelAddress.ts"
import { afterDrain, type WireDrain, wasDrained } from "./ModelIdle.ts"
import { led, modeOf, policyOf } from "./ModelModes.ts"
import {
  areFellows,
  type Claim,
  differsFromOthers,
  isInTheWay,
  isOutvoted,
  mayShare,
  serviceOf
} from "./ModelServices.ts"
import { holdsPort, standsBehind, succeeded } from "./ModelStandby.ts"
import type { Model, ModelHost, ModelMapping } from "./ModelState.ts"
import type { Call, Elsewhere, Ended, WireBinding, WireMapAnswer, WireMapRequest, WireReq } from "./Target.ts"

export type { Model, ModelHost, ModelMapping }

/** All states that are possible after a call; or what was wrong with the call in any state. */
export type Verdict =
  | { readonly _tag: "May"; readonly models: ReadonlyArray<Model> }
  | { readonly _tag: "Wrong"; readonly rule: string; readonly why: string }

export const noMappings: Model = {
  mappings: [],
  taken: [],
  refusing: [],
  nowMillis: 0,
  engine: { epoch: 0, sinceMillis: 0, activated: false },
  last: new Map()
}

const may = (...models: ReadonlyArray<Model>): Verdict => ({ _tag: "May", models })
const wrong = (rule: string, why: string): Verdict => ({ _tag: "Wrong", rule, why })

/** The states that a call with this outcome may leave. `value` is a valid request. */
export const afterCall = (host: ModelHost, model: Model, call: Call, ended: Ended): Verdict => {
  if (ended.outcome._tag === "Broken") return wrong("total", `a defect: ${ended.outcome.text}`)
  if (ended.outcome._tag === "Hung") return wrong("bounded", "the call never ended")
  switch (call.method) {
    case "Plugin.Activate":
      return may({ ...model, engine: { ...model.engine, activated: true } })
    case "PortMapper.MapPorts":
      return afterMap(host, model, call.value as WireMapRequest, call.owner, ended)
    case "PortMapper.UnmapPorts":
      return afterUnmap(
        model,
        (call.value as { PortBindings: ReadonlyArray<WireBinding> }).PortBindings,
        ended
      )
    case "PortMapper.ListPorts":
    // Like one `MapPorts` after the other with one delivery; the harness never makes this call.
    case "PortMapper.MapGroups":
    // Only a driver that follows has these methods.
    case "PortMapper.FollowContainer":
    case "PortMapper.FollowInterface":
      return may(model)
    case "PortMapper.Drain":
    case "PortMapper.Undrain": {
      const after = afterDrain(model, call.value as WireDrain, call.method === "PortMapper.Drain", ended)
      return typeof after === "string" ? wrong("drains", after) : may(...after)
    }
  }
}

/** A request that is invalid in itself is refused as such, and changes nothing. */
export const afterWrongCall = (model: Model, { outcome }: Ended): Verdict => {
  if (outcome._tag === "Broken") return wrong("total", `a defect: ${outcome.text}`)
  if (outcome._tag === "Refused" && outcome.fault === "request") return may(model)
  return wrong("refused", `a request that means nothing was not refused as such: ${JSON.stringify(outcome)}`)
}

/**
 * The answer of a call was lost: what it created is gone, unless another call has answered with it since. The
 * policy requested last stays, and evicted mappings stay evicted.
 */
export const afterLoss = (model: Model, lost: number): ReadonlyArray<Model> => {
  const mappings = model.mappings.flatMap((mapping) => {
    if (mapping.pending === undefined) return [mapping]
    const pending = mapping.pending.filter((call) => call !== lost)
    return pending.length === 0 ? [] : [{ ...mapping, pending }]
  })
  return succeeded({ ...model, mappings }, model)
}

/**
 * The mapper's process ended and another one began. Answered mappings are restored, unless their port was taken
 * meanwhile.
 */
export const afterRestart = (model: Model): ReadonlyArray<Model> => {
  const isLost = (mapping: ModelMapping) =>
    mapping.port !== 0 && !mapping.standby && model.taken.some((other) => meets(other, mapping))
  const mappings = model.mappings.map((mapping): ModelMapping => {
    const lost = isLost(mapping)
    const wide = model.mappings.some((other) => !isLost(other) && isCoveredBy(mapping, other))
    const standing = lost ? "conflicted" : mapping.recorded === "answered" ? "answered" : "unconfirmed"
    return { ...mapping, standing, wide, unrelayed: undefined }
  })
  const restarted = { ...model, mappings, refusing: [], last: new Map() }
  const engine = { ...model.engine, sinceMillis: model.nowMillis }
  // The mapper may or may not remember an Activate that no `MapPorts` followed.
  return model.engine.activated
    ? [
        { ...restarted, engine },
        { ...restarted, engine: { ...engine, activated: false } }
      ]
    : [{ ...restarted, engine }]
}

/** Whether `mapping`, when it is bound, shares the socket of `other`. */
const isCoveredBy = (mapping: ModelMapping, other: ModelMapping): boolean =>
  !mapping.standby &&
  !other.standby &&
  other.any &&
  other.port === mapping.port &&
  (other.backend === mapping.backend || areFellows(other, mapping)) &&
  sameGround(other, mapping)

/**
 * The mapper's process ended in the middle of a call: it was done, recorded or not, or it was not done; never half
 * done.
 */
export const afterCrash = (host: ModelHost, model: Model, call: Call, ended: Ended): Verdict => {
  const answers =
    call.method === "PortMapper.MapPorts" ? possibleAnswers(host, call.value as WireMapRequest) : []
  const verdicts = [
    afterCall(host, model, call, { ...ended, killed: true }),
    ...answers.map((answer) =>
      afterCall(host, model, call, { outcome: { _tag: "Answered", answer }, struck: true, killed: true })
    )
  ]
  return may(
    ...verdicts
      .flatMap((verdict) => (verdict._tag === "May" ? verdict.models : []))
      .flatMap((each) => [each, ...afterRecording(each)])
      .flatMap(afterRestart)
  )
}

/** Every answer that a call may get when nothing prevents it from being granted. */
const possibleAnswers = (host: ModelHost, { Reqs, Labels }: WireMapRequest): ReadonlyArray<WireMapAnswer> => {
  const reqs = Reqs ?? []
  const [first] = reqs
  const labels = Labels ?? {}
  const mode = modeOf(labels, reqs, host.capabilities)
  if (first === undefined || mode === undefined) return []
  const range = rangeOf(first, host)
  const ports = Array.from({ length: range.last - range.first + 1 }, (_, index) => range.first + index)
  const answered = (port: number) =>
    reqs.map((req): WireBinding => {
      const { discarded, allowForwarding, nat } = led(req, mode, host.capabilities, labels)
      return {
        ...{
          Proto: req.Proto,
          BackendIP: req.BackendIP,
          BackendPort: req.BackendPort,
          FrontendIP: req.FrontendIP
        },
        FrontendPort: port,
        DiscardReq: discarded ?? false,
        AllowForwarding: allowForwarding,
        NAT: nat === undefined ? null : { FromAddr: nat, FromPort: port },
        Error: discarded ? "discarded" : null
      }
    })
  return (mode === "routed" ? [...ports, 0] : ports).map((port) => ({
    PortBindings: answered(port),
    Err: ""
  }))
}

/** An answered mapping that could not be recorded as answered may be recorded so at any later time, each with its next change. */
export const afterRecording = (model: Model): ReadonlyArray<Model> =>
  subsets(
    model.mappings.filter(
      ({ standing, recorded, pending }) =>
        standing === "answered" && recorded === "applied" && pending === undefined
    )
  )
    .filter((late) => late.length > 0)
    .map((late) => ({
      ...model,
      mappings: model.mappings.map(
        (each): ModelMapping => (late.includes(each) ? { ...each, recorded: "answered" } : each)
      )
    }))

/** Time passed: a conflicted mapping is served again once nothing is in its way. */
export const afterWait = (model: Model, seconds: number): ReadonlyArray<Model> => {
  const conflicted = model.mappings.filter(
    (mapping) => mapping.standing === "conflicted" && mapping.port !== 0
  )
  const nowMillis = model.nowMillis + seconds * 1000
  return afterRetryOf(model, conflicted, model.refusing.length === 0).map((each) => ({ ...each, nowMillis }))
}

/**
 * These mappings in conflict were tried again: each that surely nothing is in the way of is served, and each that
 * perhaps nothing is in the way of may be. Not `isCertain`: none surely is.
 */
const afterRetryOf = (
  model: Model,
  conflicted: ReadonlyArray<ModelMapping>,
  isCertain: boolean
): ReadonlyArray<Model> => {
  const isFreeFor = (mapping: ModelMapping, surely: boolean) => {
    const others = model.mappings.filter(
      (other) => !areFellows(other, mapping) || (mapping.any && !other.any && (surely || !other.wide))
    )
    return isFree({ ...model, mappings: others }, [mapping], mapping.port, surely)
  }
  const free = conflicted.filter((mapping) => isFreeFor(mapping, false))
  if (free.length === 0) return [model]
  const surely = free.filter((mapping) => isCertain && isFreeFor(mapping, true))
  return subsets(free.filter((mapping) => !surely.includes(mapping))).map((perhaps) => ({
    ...model,
    mappings: model.mappings.map(
      (mapping): ModelMapping =>
        surely.includes(mapping) || perhaps.includes(mapping) ? backFromConflict(mapping) : mapping
    )
  }))
}

/** Served again, it has its status from before the conflict. */
const backFromConflict = (mapping: ModelMapping): ModelMapping =>
  mapping.standing === "conflicted"
    ? { ...mapping, standing: mapping.recorded === "answered" ? "answered" : "unconfirmed" }
    : mapping

/** Whether another process could take this port: not while a mapping holds it. */
export const mayTake = (model: Model, other: Elsewhere): boolean =>
  isUntaken(model, other) &&
  !model.mappings.some((mapping) => holdsPort(model, mapping) && meets(other, mapping, mapping.wide))

/** Whether no other process has the port. */
export const isUntaken = (model: Model, other: Elsewhere): boolean =>
  !model.taken.some(
    (taken) =>
      taken.port === other.port &&
      conflict(frontend(taken.proto, taken.host), frontend(other.proto, other.host))
  )

const afterMap = (
  host: ModelHost,
  model: Model,
  request: WireMapRequest,
  owner: string,
  ended: Ended & { readonly retried?: true }
): Verdict => {
  const { outcome, struck, lost: lostBy, killed } = ended
  const reqs = request.Reqs ?? []
  const [first] = reqs
  if (first === undefined)
    return outcome._tag === "Answered"
      ? sameJson(outcome.answer, { PortBindings: [], Err: "" })
        ? may(model)
        : wrong("7", "no entries are answered with no bindings")
      : wrong("7", "a request without entries can't fail")
  const labels = request.Labels ?? {}
  const mode = modeOf(labels, reqs, host.capabilities)
  const lost = outcome._tag === "Unanswered"
  if (mode === undefined)
    return outcome._tag === "Refused"
      ? may(model)
      : wrong("modes", `the requested mode is not available on this host, but the call was ${outcome._tag}`)
  const exact =
    first.FrontendPort === first.FrontendPortEnd && first.FrontendPort !== 0 ? first.FrontendPort : undefined
  if (!mayShare(labels, mode, exact !== undefined, host.capabilities))
    return outcome._tag === "Refused"
      ? may(model)
      : wrong("services", `the port can't be shared as requested, but the call was ${outcome._tag}`)
  const claim: Claim = { service: serviceOf(labels, owner), mode, labels }
  const asked = reqs.map((req) => ({
    req,
    at: frontendOf(req),
    led: led(req, mode, host.capabilities, labels)
  }))
  const served = asked.filter(({ led }) => led.discarded === undefined)
  if (served.length === 0)
    return outcome._tag === "Refused"
      ? may(model)
      : wrong("7", "every entry of the group would be discarded, which fails the call")

  const backends = new Map(served.map(({ req }) => [req, backendOf(req)]))
  const isOwn = (mapping: ModelMapping, at: Frontend, req: WireReq) =>
    mapping.backend === backends.get(req) &&
    mapping.proto === at.proto &&
    (mode === "routed"
      ? mapping.mode === "routed"
      : mapping.mode !== "routed" &&
        mapping.key === at.key &&
        mapping.port === exact &&
        (mapping.standby || mapping.share === claim.service))
  const own = new Map(
    served.map((each) => [
      each,
      model.mappings.find((mapping) => mapping.standing !== "conflicted" && isOwn(mapping, each.at, each.req))
    ])
  )
  const ownMappings = new Set([...own.values()])
  const begins = owner === "engine" && model.engine.activated
  const begun = begins
    ? { epoch: model.engine.epoch + 1, sinceMillis: model.nowMillis, activated: false }
    : model.engine
  const stale = (mapping: ModelMapping, epoch: number, sinceMillis: number) =>
    mapping.owner === "engine" && mapping.epoch < epoch && model.nowMillis - sinceMillis >= 60_000
  const stays = (holder: ModelMapping) =>
    holder.standing === "answered" && !stale(holder, begun.epoch, begun.sinceMillis)
  const waiting = served.filter(
    (each) =>
      own.get(each) === undefined &&
      exact !== undefined &&
      mode !== "routed" &&
      standsBehind(model, { ...each.at, port: exact }, owner, stays)
  )
  const fresh = served.filter((each) => own.get(each) === undefined && !waiting.includes(each))
  const inConflict = model.mappings.filter(
    (mapping) => mapping.standing === "conflicted" && served.some(({ at, req }) => isOwn(mapping, at, req))
  )
  // An answered mapping in conflict comes back, where it can be served, before another one gets its port.
  const answeredConflicts = model.mappings.filter(
    (mapping) =>
      mode !== "routed" &&
      mapping.port !== 0 &&
      mapping.standing === "conflicted" &&
      mapping.recorded === "answered" &&
      !inConflict.includes(mapping) &&
      !stale(mapping, begun.epoch, begun.sinceMillis) &&
      (mapping.share === undefined || mapping.share !== claim.service) &&
      fresh.some(({ at }) => conflict(mapping, at))
  )
  if (exact !== undefined && ended.retried === undefined) {
    const isCertain = !struck && !killed && model.refusing.length === 0 && inConflict.length === 0
    const inTheWay = answeredConflicts.filter(({ port }) => port === exact)
    const verdicts = afterRetryOf(model, inTheWay, isCertain).map((each) =>
      afterMap(host, each, request, owner, { ...ended, retried: true })
    )
    const models = verdicts.flatMap((verdict) => (verdict._tag === "May" ? verdict.models : []))
    return models.length > 0 ? may(...models) : (verdicts[0] ?? may(model))
  }
  // Of a range, their ports are not given.
  const guarded: Model = {
    ...model,
    mappings: model.mappings.map((mapping) =>
      exact === undefined && answeredConflicts.includes(mapping)
        ? { ...mapping, standing: "answered" }
        : mapping
    )
  }
  const holders =
    exact === undefined || mode === "routed"
      ? []
      : model.mappings.filter(
          (mapping) =>
            mapping.port === exact &&
            !ownMappings.has(mapping) &&
            (fresh.some(
              ({ at, req }) =>
                conflict(mapping, at) && (isOwn(mapping, at, req) || isInTheWay(model, mapping, at, claim))
            ) ||
              (isOutvoted(mapping, claim) && served.some(({ at }) => conflict(mapping, at))))
        )
  const standing = holders.filter((holder) => holdsPort(model, holder) && stays(holder))
  // A mapping of the same binding with a host port is replaced by one without.
  const superseded = model.mappings.filter(
    (mapping) =>
      mode === "routed" &&
      mapping.mode !== "routed" &&
      mapping.port === exact &&
      served.some(
        ({ at, req }) =>
          mapping.backend === backends.get(req) && mapping.proto === at.proto && mapping.key === at.key
      )
  )
  // Where a range has no port left, unconfirmed mappings in it are evicted, as far as needed.
  const abandoned = (mapping: ModelMapping) =>
    mapping.standing === "unconfirmed" ||
    (mapping.standing === "answered" && stale(mapping, begun.epoch, begun.sinceMillis))
  const ranged = exact === undefined && mode !== "routed" ? rangeOf(first, host) : undefined
  const yielding =
    ranged === undefined
      ? []
      : yieldingOf(
          guarded,
          ranged,
          fresh.map(({ at }) => at),
          abandoned
        )

  // Mappings that share a socket in the way are evicted with it, if they may be.
  const along = model.mappings.filter(
    (mapping) =>
      mode !== "routed" &&
      mapping.wide &&
      (mapping.port === exact || yielding.some(({ port }) => port === mapping.port)) &&
      !ownMappings.has(mapping) &&
      !holders.includes(mapping) &&
      !yielding.includes(mapping) &&
      fresh.some(({ at }) => sameGround(mapping, at) && isInTheWay(model, mapping, at, claim)) &&
      abandoned(mapping)
  )

  // An evicted mapping is put back, on its own socket; it is in conflict where that is refused. A kill may prevent
  // it.
  const comeBack = (mapping: ModelMapping): ReadonlyArray<ModelMapping | undefined> => {
    const wide = model.mappings.some(
      (other) => other.standing !== "conflicted" && isCoveredBy(mapping, other)
    )
    return [
      mapping,
      ...(wide === mapping.wide ? [] : [{ ...mapping, wide }]),
      ...(model.refusing.length === 0 ? [] : [{ ...mapping, standing: "conflicted" as const }]),
      ...(killed === true ? [undefined] : [])
    ]
  }

  // The change was not made: nothing is left of it.
  const unchanged = (): ReadonlyArray<Model> => {
    const bases = begins ? [model, { ...model, engine: begun }] : [model]
    const unsettled = standing.length > 0 ? [] : [...holders, ...along, ...yielding, ...superseded]
    const dynamic = exact === undefined ? [unknownLast(model, first, served[0]?.at)] : []
    const settled = unsettled.reduce<ReadonlyArray<ReadonlyArray<ModelMapping>>>(
      (all, mapping) =>
        comeBack(mapping).flatMap((back) => all.map((each) => (back === undefined ? each : [...each, back]))),
      [model.mappings.filter((mapping) => !unsettled.includes(mapping))]
    )
    return bases.flatMap((base) =>
      settled.flatMap((mappings) => [
        { ...base, mappings },
        ...dynamic.map((last) => ({ ...base, last, mappings }))
      ])
    )
  }

  // A conflicted mapping that is requested again is served again if possible, whatever happens to the rest of the
  // call.
  const recovered = (each: Model): ReadonlyArray<Model> =>
    subsets(inConflict).map((again) => ({
      ...each,
      mappings: each.mappings.map((mapping) =>
        again.some((one) => sameMapping(one, mapping)) ? backFromConflict(mapping) : mapping
      )
    }))

  if (lost) {
    if (!struck) return wrong("answers", "the call was not answered")
    // Requested and granted again, but not answered: it counts as confirmed or not, in its age and in the record.
    const again = new Set([...ownMappings, ...inConflict])
    const asked =
      again.size === 0 || killed !== true
        ? []
        : unchanged().flatMap((each) => askedAgain(each, again, owner, begun.epoch))
    return may(...[...unchanged(), ...asked].flatMap(recovered))
  }
  const staying = { ...model, mappings: model.mappings.filter((mapping) => !holders.includes(mapping)) }
  const differs = served.some((each) => differsFromOthers(staying, each.at, exact, own.get(each), claim))
  if (outcome._tag === "Refused") {
    const mayFail = struck || model.refusing.length > 0
    const reason = whyRefused({
      ...{ exact, mode, fresh, standing, first, host, yielding, claim, differs },
      model: guarded,
      own: [...ownMappings, ...inConflict].filter((mapping) => !mapping?.standby)
    })
    if (reason === undefined)
      return mayFail
        ? may(...unchanged().flatMap(recovered))
        : wrong("maps", `a group that can be mapped was refused: ${outcome.text}`)
    if (mayFail || reason.texts.some((text) => outcome.text.includes(text)))
      return may(...unchanged().flatMap(recovered))
    return wrong("2", `refused with "${outcome.text}", which lacks "${reason.texts.join('" or "')}"`)
  }
  if (outcome._tag !== "Answered") return may(model)

  const answer = outcome.answer as WireMapAnswer
  if (answer.Err !== "") return wrong("answers", `a success with Err ${JSON.stringify(answer.Err)}`)
  const bindings = answer.PortBindings ?? []
  if (bindings.length !== reqs.length)
    return wrong("answers", `${bindings.length} bindings for ${reqs.length} entries`)
  const port = bindings[0]?.FrontendPort ?? 0
  if (bindings.some((binding) => binding.FrontendPort !== port))
    return wrong("1", "the ports of one group differ")
  for (const [index, each] of asked.entries()) {
    const binding = bindings[index]
    const problem = binding === undefined ? "missing" : differing(each.req, each.led, port, binding)
    if (problem !== undefined) return wrong("answers", `binding ${index}: ${problem}`)
  }
  if (exact !== undefined && port !== exact)
    return wrong("5", `port ${port} was given for the exact port ${exact}`)
  if (standing.length > 0)
    return wrong("6", `${frontendTextOf(standing[0] as ModelMapping)} was mapped already, and mapped again`)
  if (differs) return wrong("services", "its policy differs from that of the service's other backends")
  const reserved = mode === "routed" ? [] : fresh
  const other = model.taken.find(
    (taken) =>
      taken.port === port && reserved.some(({ at }) => conflict(at, frontend(taken.proto, taken.host)))
  )
  if (other !== undefined) return wrong("2", `port ${port} was given, which another process has`)
  let last = model.last
  const displaced = yielding.filter((mapping) => mapping.port === port)
  if (ranged !== undefined) {
    const before = {
      ...guarded,
      mappings: guarded.mappings.filter((mapping) => !displaced.includes(mapping))
    }
    const chosen = checkChoice(
      before,
      ranged,
      reserved.map(({ at }) => at),
      port
    )
    if (typeof chosen === "string") return wrong("5", chosen)
    last = chosen
  }

  const wideHosts = served.filter((each) => each.at.any && !waiting.includes(each) && !own.get(each)?.standby)
  // A new entry of the same binding, in another mode or after a conflict, keeps whether it was answered.
  const anew = (at: Frontend, backend: string) =>
    [...inConflict, ...superseded].filter(
      (mapping) =>
        mapping.backend === backend &&
        mapping.proto === at.proto &&
        (mode === "routed" || mapping.key === at.key)
    )
  const made = [...fresh, ...waiting].map(({ at, req, led }): ModelMapping => {
    const standby = waiting.some((each) => each.req === req) ? true : undefined
    return {
      ...at,
      port: mode === "routed" ? 0 : port,
      asked: req.FrontendIP,
      backend: backends.get(req) as string,
      backendIp: req.BackendIP,
      mode,
      policy: policyOf(labels),
      allow: led.allow,
      owner,
      share: standby ? undefined : claim.service,
      epoch: begun.epoch,
      standing: "answered",
      recorded: recordedAfter(anew(at, backends.get(req) as string), lostBy),
      pending: pendingAfter(anew(at, backends.get(req) as string), lostBy),
      standby,
      drained: wasDrained(inConflict, at, backends.get(req) as string),
      wide:
        !standby &&
        (wideHosts.some((wide) => sameGround(wide.at, at) && backends.get(wide.req) === backends.get(req)) ||
          model.mappings.some(
            (other) => other.wide && other.port === exact && !isInTheWay(model, other, at, claim)
          ))
    }
  })
  const unique = made.filter(
    (mapping, index) =>
      mode !== "routed" ||
      made.findLastIndex((later) => later.backend === mapping.backend && later.proto === mapping.proto) ===
        index
  )
  // A conflicted mapping holds nothing, so it is never in the way: if another mapping gets its port it is removed,
  // or stays.
  const powerless = model.mappings.filter(
    (mapping) =>
      exact === undefined &&
      !holdsPort(model, mapping) &&
      mapping.port === port &&
      reserved.some(({ at }) => conflict(mapping, at))
  )
  const replaced = powerless.filter((mapping) => reserved.some(({ at }) => mapping.key === at.key))
  const kept = model.mappings
    .filter((mapping) => ![...holders, ...replaced, ...displaced, ...superseded].includes(mapping))
    .map((mapping): ModelMapping => {
      if (!ownMappings.has(mapping)) return mapping
      const each = served.find((candidate) => own.get(candidate) === mapping)
      const renewed = {
        ...mapping,
        mode,
        standing: lostBy === undefined ? ("answered" as const) : mapping.standing,
        recorded: recordedAfter([mapping, ...anew(mapping, mapping.backend)], lostBy),
        pending: pendingAfter([mapping, ...anew(mapping, mapping.backend)], lostBy),
        owner: follows(mapping.owner, owner) ? owner : mapping.owner,
        epoch: owner === "engine" ? begun.epoch : mapping.epoch
      }
      return each === undefined || (policyOf(labels) === mapping.policy && mapping.mode === mode)
        ? renewed
        : { ...renewed, policy: policyOf(labels), allow: each.led.allow, asked: each.req.FrontendIP }
    })
  const done: Model = { ...model, engine: begun, last, mappings: [...kept, ...unique] }
  const named = new Set([
    ...unique,
    ...kept.filter((mapping) =>
      [...ownMappings].some((one) => one !== undefined && sameMapping(one, mapping))
    )
  ])
  const cleared = { ...done, mappings: done.mappings.filter((mapping) => !powerless.includes(mapping)) }
  const taken = [done, ...(powerless.length > replaced.length ? [cleared] : [])]
    .flatMap((each) =>
      subsets([...along, ...yielding.filter((mapping) => mapping.port !== port)]).map((gone) => ({
        ...each,
        mappings: each.mappings.filter((mapping) => !gone.includes(mapping))
      }))
    )
    .flatMap((each) =>
      // If killed in between, the new mapping was recorded, and the one it replaces not yet removed.
      subsets(killed === true ? superseded : []).map((left) => ({
        ...each,
        mappings: [...each.mappings, ...left]
      }))
    )
    .flatMap((each) => ownersOf(each, ownMappings, owner))
  if (!struck && model.refusing.length === 0) return may(...taken)
  // Recording the answer may have failed: then the record says what it said before.
  // Killed before, it does not say yet that what takes the place of an answered one is answered.
  const unrecorded = (killed === true ? [true, false] : [true]).flatMap((carried) =>
    taken.map((each) => ({
      ...each,
      mappings: each.mappings.map((mapping): ModelMapping => {
        if (![...named].some((one) => sameMapping(one, mapping))) return mapping
        const before = [...ownMappings].flatMap((one) =>
          one !== undefined && sameMapping(one, mapping) ? [one] : []
        )
        const others = carried ? anew(mapping, mapping.backend) : []
        return { ...mapping, recorded: recordedAfter([...before, ...others], 0) }
      })
    }))
  )
  return may(...taken, ...unrecorded)
}

/** The calls whose pending answers may still name these mappings; `undefined` where one was answered. */
const pendingAfter = (
  before: ReadonlyArray<ModelMapping>,
  lostBy: number | undefined
): ModelMapping["pending"] => {
  if (lostBy === undefined || before.some(({ pending }) => pending === undefined)) return undefined
  return [...before.flatMap(({ pending }) => pending ?? []), lostBy]
}

const recordedAfter = (
  before: ReadonlyArray<ModelMapping>,
  lostBy: number | undefined
): ModelMapping["recorded"] =>
  lostBy === undefined || before.some(({ recorded }) => recorded === "answered") ? "answered" : "applied"

/** Owners of one kind follow each other at a backend. */
const follows = (from: string, to: string): boolean =>
  to.includes(":") && from.split(":")[0] === to.split(":")[0]

/** An unconfirmed mapping that the call answers with may change to the caller's ownership. */
const ownersOf = (
  done: Model,
  own: ReadonlySet<ModelMapping | undefined>,
  owner: string
): ReadonlyArray<Model> => {
  const unconfirmed = [...own].flatMap((mapping) =>
    mapping?.standing === "unconfirmed" && mapping.owner !== owner ? [mapping] : []
  )
  const isThat = (mapping: ModelMapping) => unconfirmed.some((one) => sameMapping(one, mapping))
  if (!done.mappings.some(isThat)) return [done]
  return [
    done,
    {
      ...done,
      mappings: done.mappings.map((mapping) =>
        isThat(mapping) ? { ...mapping, owner, epoch: done.engine.epoch } : mapping
      )
    }
  ]
}

/**
 * Mappings whose policy was restored may belong to the Engine's earlier epoch again, and the others to the current
 * one.
 */
const askedAgain = (
  model: Model,
  own: ReadonlySet<ModelMapping | undefined>,
  owner: string,
  epoch: number
): ReadonlyArray<Model> =>
  (["answered", "applied"] as const).flatMap((recorded) =>
    subsets(owner === "engine" ? [...own] : []).map((renewed) => ({
      ...model,
      mappings: model.mappings.map((mapping) =>
        own.has(mapping)
          ? {
              ...mapping,
              recorded,
              owner: follows(mapping.owner, owner) ? owner : mapping.owner,
              epoch: renewed.includes(mapping) ? epoch : mapping.epoch
            }
          : mapping
      )
    }))
  )

/** Why a group can't be mapped, as the texts that tools match on; `undefined` where it can be. */
const whyRefused = (about: {
  readonly model: Model
  readonly exact: number | undefined
  readonly mode: string
  readonly fresh: ReadonlyArray<{ readonly at: Frontend; readonly req: WireReq }>
  readonly standing: ReadonlyArray<ModelMapping>
  readonly first: WireReq
  readonly host: ModelHost
  readonly yielding: ReadonlyArray<ModelMapping>
  readonly own: ReadonlyArray<ModelMapping | undefined>
  readonly claim: Claim
  /** Whether the policy differs from that of the service's other backends. */
  readonly differs: boolean
}): { readonly texts: ReadonlyArray<string> } | undefined => {
  const { model, exact, mode, fresh, standing, own, claim, differs } = about
  if (standing.length > 0) return { texts: ["port is already allocated"] }
  if (differs) return { texts: ["a backend of service"] }
  if (mode === "routed" || fresh.length === 0) return undefined
  if (exact === undefined) {
    const before = { ...model, mappings: model.mappings.filter((each) => !about.yielding.includes(each)) }
    const frontends = fresh.map(({ at }) => at)
    const free = portsOf(rangeOf(about.first, about.host)).some((port) =>
      isFree(before, frontends, port, true)
    )
    return free ? undefined : { texts: ["all ports are allocated"] }
  }
  const texts: Array<string> = []
  // A mapping's socket may be bound to a wider address than the mapping's, for as long as it is open.
  if (
    model.mappings.some(
      (mapping) =>
        mapping.wide &&
        mapping.port === exact &&
        !own.includes(mapping) &&
        mapping.standing !== "conflicted" &&
        fresh.some(({ at }) => sameGround(mapping, at) && isInTheWay(model, mapping, at, claim))
    )
  )
    texts.push("port is already allocated")
  // KNOWN: a socket that is bound to one address can't be widened to all addresses while it is held.
  if (
    own.some(
      (mapping) =>
        mapping !== undefined &&
        !mapping.any &&
        !mapping.wide &&
        fresh.some(({ at }) => at.any && sameGround(mapping, at))
    )
  )
    texts.push("address already in use")
  if (
    model.taken.some(
      (taken) =>
        taken.port === exact && fresh.some(({ at }) => conflict(at, frontend(taken.proto, taken.host)))
    )
  )
    texts.push("address already in use")
  return texts.length === 0 ? undefined : { texts }
}

interface AskedRange {
  readonly first: number
  readonly last: number
  readonly gives: (port: number) => boolean
  readonly name: string
}

/** The range of a group that requests any port of it. */
const rangeOf = (req: WireReq, { ephemeral }: ModelHost): AskedRange => {
  if (req.FrontendPort !== 0)
    return {
      first: req.FrontendPort,
      last: req.FrontendPortEnd,
      gives: () => true,
      name: `${req.FrontendPort}-${req.FrontendPortEnd}`
    }
  const reserved = (port: number) =>
    ephemeral.reserved.some(({ first, last }) => first <= port && port <= last)
  return { ...ephemeral.range, gives: (port: number) => !reserved(port), name: "ephemeral" }
}

const portsOf = ({ first, last, gives }: AskedRange): ReadonlyArray<number> =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index).filter(gives)

/** The mappings that may be evicted to free a port of a range that has none left for these frontends. */
const yieldingOf = (
  model: Model,
  range: AskedRange,
  frontends: ReadonlyArray<Frontend>,
  abandoned: (mapping: ModelMapping) => boolean
): ReadonlyArray<ModelMapping> => {
  const ports = portsOf(range)
  if (ports.some((port) => isFree(model, frontends, port, true))) return []
  return ports.flatMap((port) => {
    const holders = model.mappings.filter(
      (mapping) =>
        mapping.port === port && holdsPort(model, mapping) && frontends.some((at) => conflict(mapping, at))
    )
    return holders.every(abandoned) ? holders : []
  })
}

/** Whether these frontends are free on this port; `surely`: whatever address the sockets are bound to. */
const isFree = (model: Model, frontends: ReadonlyArray<Frontend>, port: number, surely: boolean): boolean =>
  !model.mappings.some(
    (mapping) =>
      mapping.port === port &&
      holdsPort(model, mapping) &&
      frontends.some((at) => conflict(mapping, at) || (surely && mapping.wide && sameGround(mapping, at)))
  ) &&
  !model.taken.some(
    (taken) => taken.port === port && frontends.some((at) => conflict(at, frontend(taken.proto, taken.host)))
  )

/** Checks the port of a range: free on all addresses, and the next free one after the port assigned last. */
const checkChoice = (
  model: Model,
  range: AskedRange,
  frontends: ReadonlyArray<Frontend>,
  port: number
): ReadonlyMap<string, number | undefined> | string => {
  if (port < range.first || port > range.last) return `port ${port} is not in ${range.first}-${range.last}`
  if (!range.gives(port)) return `port ${port} is one that the system reserves`
  if (!isFree(model, frontends, port, false)) return `port ${port} is not free on every address of the group`
  const key = `${frontends[0]?.proto} ${range.name}`
  const last = model.last.get(key)
  if (last !== undefined) {
    for (
      let next = last === range.last ? range.first : last + 1;
      next !== port;
      next = next === range.last ? range.first : next + 1
    )
      if (range.gives(next) && isFree(model, frontends, next, true))
        return `port ${port} was given after ${last}, though ${next} comes first`
  }
  return new Map([...model.last, [key, port]])
}

const unknownLast = (
  model: Model,
  req: WireReq,
  at: Frontend | undefined
): ReadonlyMap<string, number | undefined> => {
  const name = req.FrontendPort === 0 ? "ephemeral" : `${req.FrontendPort}-${req.FrontendPortEnd}`
  return new Map([...model.last, [`${at?.proto} ${name}`, undefined]])
}

/** What differs between the answer to one entry and the required answer. */
const differing = (
  req: WireReq,
  { discarded, allowForwarding, nat }: ReturnType<typeof led>,
  port: number,
  binding: WireBinding
): string | undefined => {
  const expectField = (name: keyof WireBinding, expected: unknown) =>
    sameJson(binding[name], expected)
      ? undefined
      : `${name} is ${JSON.stringify(binding[name])} instead of ${JSON.stringify(expected)}`
  return (
    expectField("Proto", req.Proto) ??
    expectField("BackendIP", req.BackendIP) ??
    expectField("BackendPort", req.BackendPort) ??
    expectField("FrontendIP", req.FrontendIP) ??
    expectField("DiscardReq", discarded !== undefined) ??
    expectField("AllowForwarding", allowForwarding) ??
    expectField("NAT", nat ? { FromAddr: nat, FromPort: port } : null) ??
    (discarded === undefined
      ? expectField("Error", null)
      : typeof binding.Error === "string" && binding.Error !== ""
        ? undefined
        : "Error does not say why it was discarded")
  )
}

const afterUnmap = (
  model: Model,
  bindings: ReadonlyArray<WireBinding>,
  { outcome, struck }: Ended
): Verdict => {
  const named = new Set(
    bindings.flatMap((binding): ModelMapping | ReadonlyArray<ModelMapping> => {
      const at = frontend(binding.Proto, binding.FrontendIP, binding.BackendIP)
      const whatever = binding.BackendIP === "" || binding.BackendPort === 0
      const backend = whatever ? undefined : backendOf(binding)
      const published = model.mappings.filter(
        (mapping) =>
          mapping.mode !== "routed" &&
          mapping.proto === at.proto &&
          mapping.key === at.key &&
          mapping.port === binding.FrontendPort &&
          (backend === undefined || mapping.backend === backend)
      )
      const routed = model.mappings.find(
        (mapping) => mapping.mode === "routed" && mapping.proto === at.proto && mapping.backend === backend
      )
      return published.length > 0 ? published : (routed ?? [])
    })
  )
  const without = (gone: ReadonlyArray<ModelMapping>): Model => ({
    ...model,
    mappings: model.mappings.filter((mapping) => !gone.includes(mapping))
  })
  if (outcome._tag === "Answered")
    return may(
      ...succeeded(without([...named]), model),
      // What can't be served at once is retried.
      ...(struck || model.refusing.length > 0 ? [without([...named])] : [])
    )
  // The remaining mappings are recorded as before, or in the state that the mapper knows.
  const staying = (gone: ReadonlyArray<ModelMapping>): ReadonlyArray<Model> => {
    const left = without(gone)
    const known = left.mappings.map(
      (mapping): ModelMapping =>
        named.has(mapping) && mapping.standing === "answered" ? { ...mapping, recorded: "answered" } : mapping
    )
    return [left, { ...left, mappings: known }].flatMap((each) => [each, ...succeeded(each, model)])
  }
  const any = subsets([...named]).flatMap(staying)
  if (outcome._tag === "Unanswered")
    return struck ? may(...any) : wrong("answers", "the call was not answered")
  if (outcome._tag !== "Refused") return may(model)
  if (named.size === 0) return wrong("4", `unmapping what is not mapped failed: ${outcome.text}`)
  if (!struck && model.refusing.length === 0) return wrong("unmaps", `unmapping failed: ${outcome.text}`)
  const left = [...named].filter((mapping) => outcome.text.includes(frontendTextOf(mapping)))
  if (left.length === 0) return wrong("unmaps", `a failure that names nothing it kept: ${outcome.text}`)
  // A failure names the frontend alone, whichever of a service's backends it kept.
  const kept = subsets(left).filter(
    (some) =>
      some.length > 0 && left.every((mapping) => mapping.share !== undefined || some.includes(mapping))
  )
  return may(...kept.flatMap((some) => staying([...named].filter((mapping) => !some.includes(mapping)))))
}

const frontendOf = (req: WireReq): Frontend => frontend(req.Proto, req.FrontendIP, req.BackendIP)

const backendOf = (req: { readonly BackendIP: string; readonly BackendPort: number }): string =>
  endpointTextOf(req.BackendIP, req.BackendPort)

const meets = (other: Elsewhere, mapping: ModelMapping, wide = false): boolean => {
  const at = frontend(other.proto, other.host)
  return other.port === mapping.port && (conflict(at, mapping) || (wide && sameGround(at, mapping)))
}

const sameGround = (one: Frontend, other: Frontend): boolean =>
  one.proto === other.proto && one.family === other.family

const sameMapping = (one: ModelMapping, other: ModelMapping): boolean =>
  one.proto === other.proto &&
  one.key === other.key &&
  one.port === other.port &&
  one.backend === other.backend

const sameJson = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other)

const subsets = <A>(all: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  all.reduce<ReadonlyArray<ReadonlyArray<A>>>(
    (found, each) => found.flatMap((subset) => [subset, [...subset, each]]),
    [[]]
  )
