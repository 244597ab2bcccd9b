/** Mappings that keep their port without traffic, by their caller's label or since a person drained them, in the model. */
import { endpointTextOf, frontend } from "./ModelAddress.ts"
import { areFellows, labelsOf } from "./ModelServices.ts"
import type { Model, ModelMapping } from "./ModelState.ts"
import type { Ended, WireBinding } from "./Target.ts"

/** Why a mapping has no traffic, as it is listed. */
export const idleState = (mapping: ModelMapping): string | undefined =>
  mapping.drained ? "drained" : labelsOf(mapping)["portmapper.idle"]

export const takesTraffic = (mapping: ModelMapping): boolean => idleState(mapping) === undefined

/** Whether no backend of the mapping's frontend takes traffic, so that the relay gets all of it. */
export const isFrontendIdle = (model: Model, mapping: ModelMapping): boolean =>
  mapping.share === undefined
    ? !takesTraffic(mapping)
    : model.mappings.every(
        (other) =>
          !areFellows(other, mapping) ||
          other.standing === "conflicted" ||
          other.proto !== mapping.proto ||
          other.key !== mapping.key ||
          other.port !== mapping.port ||
          !takesTraffic(other)
      )

/** What `Drain` or `Undrain` asks for; `Ports` are of TCP, on every address. */
export interface WireDrain {
  readonly Backend: string
  readonly Ports: ReadonlyArray<string>
}

/** The mappings that a drain names, and whether each of its ports leads to the backend. */
const namedBy = (model: Model, { Backend, Ports }: WireDrain) => {
  const leading = model.mappings.filter(({ backendIp }) => backendIp === Backend)
  const isAt = (mapping: ModelMapping, port: string) =>
    mapping.proto === 6 && mapping.any && mapping.port === Number(port)
  return {
    named: Ports.length === 0 ? leading : leading.filter((one) => Ports.some((port) => isAt(one, port))),
    isKnown: leading.length > 0 && Ports.every((port) => leading.some((mapping) => isAt(mapping, port)))
  }
}

/** The states after the call, or what is wrong with its outcome. */
export const afterDrain = (
  model: Model,
  asked: WireDrain,
  drained: boolean,
  { outcome, struck }: Ended
): ReadonlyArray<Model> | string => {
  const { named, isKnown } = namedBy(model, asked)
  const done: Model = {
    ...model,
    mappings: model.mappings.map((mapping) =>
      named.includes(mapping) ? { ...mapping, drained: drained ? true : undefined } : mapping
    )
  }
  // The Engine leads to these, and goes on.
  const cannot =
    drained && named.some(({ mode, drained }) => !drained && (mode === "engine" || mode === "routed"))
  if (outcome._tag === "Refused") {
    const mayFail = struck || model.refusing.length > 0 || !isKnown || cannot
    return mayFail ? [model] : `a backend that is mapped can't be drained: ${outcome.text}`
  }
  if (outcome._tag === "Unanswered") return struck ? [model, done] : "the call was not answered"
  if (outcome._tag !== "Answered") return [model]
  if (!isKnown || cannot) return "what can't be drained was drained"
  const { PortBindings } = outcome.answer as { readonly PortBindings: ReadonlyArray<WireBinding> }
  const seen = PortBindings.map(({ Proto, FrontendIP, FrontendPort, BackendIP, BackendPort }) =>
    drainedText({
      ...{ proto: Proto, key: frontend(Proto, FrontendIP, BackendIP).key, port: FrontendPort },
      backend: endpointTextOf(BackendIP, BackendPort)
    })
  )
  const should = named.map(drainedText)
  return `${seen.sort()}` === `${should.sort()}` ? [done] : `drained ${seen} instead of ${should}`
}

/** A routed mapping has no host port, and is listed with the address that was asked for last. */
const drainedText = ({
  proto,
  key,
  port,
  backend
}: Pick<ModelMapping, "proto" | "key" | "port" | "backend">) =>
  `${proto},${port === 0 ? "any" : key},${port},${backend}`

/** Whether a claim of the same mapping in conflict was drained. */
export const wasDrained = (
  inConflict: ReadonlyArray<ModelMapping>,
  at: Pick<ModelMapping, "proto" | "key">,
  backend: string
): true | undefined =>
  inConflict.some(
    (mapping) =>
      mapping.drained && mapping.backend === backend && mapping.proto === at.proto && mapping.key === at.key
  )
    ? true
    : undefined
