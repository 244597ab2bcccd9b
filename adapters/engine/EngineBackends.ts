/**
 * `Backends` as the Engine knows them: whether any running container has an address. It runs in the middle of a
 * mapping that the Engine itself may wait for, so it makes only requests that the Engine answers at all times, with
 * a short timeout.
 */
import { Effect, Layer } from "effect"
import { IpNetwork, NetAddress } from "effect/net"
import { type BackendState, Backends } from "../../src/mapper/MapperContext.ts"
import type { Address } from "../../src/protocol/Address.ts"
import { monotonicMillis } from "../node/monotonicMillis.ts"
import { Engine } from "./Engine.ts"

/**
 * How long a request may take, how long its result is valid, and how long to leave an Engine alone that did not
 * answer.
 */
const patienceMillis = 1_000
const freshMillis = 1_000
const restMillis = 10_000

/**
 * `gone` only for an address from one of the Engine's own networks: any other address belongs to no container of
 * this Engine, which can't tell whether it is gone.
 */
export const layer: Layer.Layer<Backends, never, Engine> = Layer.effect(
  Backends,
  Effect.gen(function* () {
    const engine = yield* Engine
    let known: { readonly untilMillis: number; readonly stateOf: (address: Address) => BackendState } = {
      untilMillis: Number.NEGATIVE_INFINITY,
      stateOf: () => "unknown"
    }
    const look = Effect.all([engine.containers, engine.networks], { concurrency: 2 }).pipe(
      Effect.map(([containers, networks]) => {
        const there = new Set(
          containers.flatMap(({ attachments }) => attachments.flatMap(({ v4, v6 }) => [v4?.key, v6?.key]))
        )
        return {
          forMillis: freshMillis,
          stateOf: (address: Address): BackendState => {
            if (there.has(address.key)) return "running"
            return networks.some(({ subnets }) => subnets.some((subnet) => contains(subnet, address)))
              ? "gone"
              : "unknown"
          }
        }
      }),
      Effect.timeoutOrElse({ duration: patienceMillis, orElse: () => Effect.succeed(silent) }),
      Effect.catch(() => Effect.succeed(silent))
    )
    return {
      stateOf: Effect.fnUntraced(function* ({ address }) {
        if (known.untilMillis <= (yield* monotonicMillis)) {
          const { forMillis, stateOf } = yield* look
          known = { untilMillis: (yield* monotonicMillis) + forMillis, stateOf }
        }
        return known.stateOf(address)
      })
    }
  })
)

const silent = { forMillis: restMillis, stateOf: (): BackendState => "unknown" }

const contains = (network: IpNetwork.IpNetwork, { family, octets }: Address): boolean =>
  family === 4
    ? IpNetwork.contains(network, NetAddress.ipv4FromBytesUnsafe(octets))
    : IpNetwork.contains(network, NetAddress.ipv6FromBytesUnsafe(octets))
