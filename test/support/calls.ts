/** Calls of a mapper, as a transport makes them, and tests of one in memory. */
import { it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import type { Capabilities } from "../../src/mapper/plan/Plan.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import type { Group, PortBinding } from "../../src/protocol/PortBinding.ts"
import { releaseOf } from "./groups.ts"
import type { MemoryServices } from "./memoryHost.ts"

export const testMapper = (
  title: string,
  effect: () => Effect.Effect<void, unknown, MemoryServices>,
  capabilities: Partial<Capabilities> = {}
) => it.effect(title, () => Effect.provide(effect(), PortMapper.layerMemory(capabilities)))

/** Its answer is delivered. */
export const map = (asked: Group) => Effect.scoped(Driver.use((driver) => driver.mapPorts(asked)))

/** Runs `done` just before its answer is delivered. */
export const mapAndTell = (asked: Group) => (done: Effect.Effect<void>) =>
  Effect.scoped(
    Effect.tap(
      Driver.use((driver) => driver.mapPorts(asked)),
      done
    )
  )

/** Its answer is lost. */
export const mapAndLose = (asked: Group) =>
  Effect.exit(
    Effect.scoped(
      Effect.andThen(
        Driver.use((driver) => driver.mapPorts(asked)),
        Effect.fail("lost")
      )
    )
  )

/** A call whose answer is on its way. */
export const pending = Effect.fnUntraced(function* (asked: Group) {
  const driver = yield* Driver
  const scope = yield* Scope.make()
  yield* Effect.provideService(driver.mapPorts(asked), Scope.Scope, scope)
  return { delivered: Scope.close(scope, Exit.void), lost: Scope.close(scope, Exit.fail("lost")) }
})

/** `PortAllocated: bind for …`. */
export const refused = (asked: Group) =>
  Effect.map(Effect.flip(map(asked)), ({ _tag, message }) => `${_tag}: ${message}`)

export const unmap = (bindings: ReadonlyArray<PortBinding>) =>
  Driver.use((driver) => driver.unmapPorts(releaseOf(bindings)))

/** Every entry of a group with an exact port. */
export const unmapGroup = ({ entries, ports }: Group) =>
  Driver.use((driver) =>
    driver.unmapPorts({
      bindings: entries.map((entry) => ({ ...entry, port: ports._tag === "Exact" ? ports.port : 0 })),
      labels: new Map()
    })
  )

export const listed = Driver.use((driver) => driver.listPorts ?? Effect.succeed([]))
