/** `Backends` as the Engine knows them; see `Attribution`. */
import * as Os from "node:os"
import { Effect, Layer, Option, Queue, References, Result } from "effect"
import {
  type Attributed,
  type Attribution,
  type BackendState,
  Backends
} from "../../src/mapper/MapperContext.ts"
import type { Mapping } from "../../src/mapper/model/Mapping.ts"
import { parseAddress } from "../../src/protocol/Address.ts"
import { monotonicMillis } from "../node/monotonicMillis.ts"
import {
  attachmentAt,
  attribute,
  containerIdOf,
  fateOf,
  type HostAddress,
  isAddressOf,
  type View
} from "./Attribution.ts"
import { Engine, type EngineError, nameAndId, shortId } from "./Engine.ts"
import { listen } from "./Listen.ts"

/**
 * In the middle of a call: how long a request may take, how long its result is valid, and how long to leave an Engine
 * alone that did not answer.
 */
const patienceMillis = 1_000
const freshMillis = 1_000
const restMillis = 10_000

/** How often to look again without an event: an Engine drops events for clients that read slowly. */
const resync = "30 seconds"

/** `hostAddresses` are those of this network namespace. */
export const layer = (
  hostAddresses: () => ReadonlyArray<HostAddress> = addressesHere
): Layer.Layer<Backends, never, Engine> =>
  Layer.effect(
    Backends,
    Effect.gen(function* () {
      const engine = yield* Engine
      const heard = yield* Queue.sliding<void>(1)
      let names: ReadonlyMap<string, string> = new Map()
      const view = Effect.tap(viewOf(engine, idOf(engine)), ({ containers }) =>
        Effect.sync(() => {
          names = new Map(containers.map(({ id, name }) => [id, name]))
        })
      )
      yield* Effect.forkScoped(
        // The watch, if there is one, logs the same.
        Effect.provideService(
          listen(engine, () => Queue.offerUnsafe(heard, undefined)),
          References.MinimumLogLevel,
          "None"
        )
      )
      return {
        stateOf: makeStateOf(engine),
        containers: {
          changed: Effect.asVoid(Effect.timeoutOption(Queue.take(heard), resync)),
          attribute: (mappings) =>
            Effect.catch(attributed(engine, view, mappings, hostAddresses), ({ message }) =>
              Effect.as(
                Effect.logDebug(`looking for the containers of mappings: ${message}`),
                mappings.map(() => ({ _tag: "Doubtful" as const }))
              )
            ),
          textOf: (container) => {
            const id = containerIdOf({ container }) ?? ""
            const name = names.get(id)
            return name === undefined ? shortId(id) : nameAndId({ id, name })
          }
        }
      }
    })
  )

/** Nothing is `Gone` by one look: the Engine shows a container that it starts as it was before. */
const attributed = Effect.fnUntraced(function* (
  engine: Engine["Service"],
  view: Effect.Effect<View, EngineError>,
  mappings: ReadonlyArray<Attributed>,
  hostAddresses: () => ReadonlyArray<HostAddress>
) {
  const look = Effect.map(view, (seen) => {
    const host = hostAddresses()
    return mappings.map((mapping) => attribute(seen, mapping, host))
  })
  const first = yield* look
  const gone = mappings.filter((_, index) => first[index]?._tag === "Gone")
  if (gone.length === 0) return first
  const ids = new Set(gone.flatMap(({ mapping }) => containerIdOf(mapping) ?? []))
  const settled = new Set<string | undefined>()
  const settle = (id: string) => Effect.option(Effect.map(engine.settled(id), () => settled.add(id)))
  yield* Effect.forEach(ids, settle, { concurrency: settledAtOnce, discard: true })
  const second = yield* look
  return second.map((each, index): Attribution => {
    if (each._tag !== "Gone") return each
    const certain = first[index]?._tag === "Gone" && settled.has(containerIdOf(mappings[index]?.mapping))
    return certain ? each : { _tag: "Doubtful" }
  })
})

const settledAtOnce = 4

/** The id last, so that it is not that of an earlier Engine. */
const viewOf = <E>(
  engine: Engine["Service"],
  id: Effect.Effect<string, E>
): Effect.Effect<View, EngineError | E> =>
  Effect.gen(function* () {
    const [containers, networks] = yield* Effect.all([engine.containers, engine.networks], { concurrency: 2 })
    return { engine: yield* id, containers, networks }
  })

const idOf = (engine: Engine["Service"]) => Effect.map(engine.info, ({ id }) => id)

/**
 * Runs while the Engine itself may wait for us, so it makes only requests that the Engine answers at all times, with a
 * short timeout.
 */
const makeStateOf = (engine: Engine["Service"]): Backends["Service"]["stateOf"] => {
  let known: { readonly untilMillis: number; readonly view: View | undefined } = {
    untilMillis: Number.NEGATIVE_INFINITY,
    view: undefined
  }
  const id = Effect.map(
    Effect.option(Effect.timeout(idOf(engine), patienceMillis / 2)),
    Option.getOrElse(() => "")
  )
  const look = Effect.map(
    Effect.option(Effect.timeout(viewOf(engine, id), patienceMillis)),
    Option.getOrUndefined
  )
  return Effect.fnUntraced(function* (mapping) {
    if (known.untilMillis <= (yield* monotonicMillis)) {
      const view = yield* look
      known = {
        untilMillis: (yield* monotonicMillis) + (view === undefined ? restMillis : freshMillis),
        view
      }
    }
    return known.view === undefined ? "unknown" : stateIn(known.view, mapping)
  })
}

const stateOfFate = { BelongsTo: "running", Gone: "gone", Doubtful: "unknown" } as const

/**
 * Where the container is unknown, by address; `gone` then only for one from the Engine's own networks: any other
 * belongs to no container of this Engine, which can't tell whether it is gone.
 */
const stateIn = (
  view: View,
  { backend, container }: Pick<Mapping, "backend" | "container">
): BackendState => {
  const { address } = backend
  if (container !== undefined) return stateOfFate[fateOf(view, container, address)._tag]
  if (view.containers.some((each) => attachmentAt(each, address) !== undefined)) return "running"
  return isAddressOf(view.networks, address) ? "gone" : "unknown"
}

/** Of the interfaces that are up and connected; a bridge is, once a container is attached to it. */
const addressesHere = (): ReadonlyArray<HostAddress> =>
  Object.entries(Os.networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.flatMap(({ address }) => {
      const parsed = parseAddress(address)
      return Result.isSuccess(parsed) ? [{ name, address: parsed.success }] : []
    })
  )
