/** Tests of the watch with everything that it uses in memory. */
import { it } from "@effect/vitest"
import { Effect, Layer, Logger, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { startWatch, type WatchOptions } from "../../adapters/engine/Watch.ts"
import { WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { InterfaceAddresses } from "../../src/ports/InterfaceAddresses.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { CurrentOwner, type Driver } from "../../src/protocol/Driver.ts"
import type { Release } from "../../src/protocol/PortBinding.ts"
import { parsePublish } from "../../src/protocol/PublishSyntax.ts"
import * as Memory from "./MemoryEngine.ts"

/** What was logged in the present test. */
export const lines: Array<string> = []

const services = () =>
  Layer.mergeAll(
    PortMapper.layerMemory(),
    Memory.layer(),
    InterfaceAddresses.layerMemory,
    WatchRecord.layerMemory,
    Logger.layer([Logger.make(({ message }) => void lines.push([message].flat().join(" ")))])
  )

type Services = Layer.Success<ReturnType<typeof services>> | Scope.Scope

export const test = (title: string, effect: () => Effect.Effect<void, unknown, Services>) =>
  it.effect(title, () => {
    lines.length = 0
    return Effect.provide(effect(), services())
  })

export const publish = (text: string, more: Record<string, string> = {}) => ({
  "portmapper.publish": text,
  ...more
})

/** The driver's mappings, as `FRONTEND -> BACKEND STATE OWNER`, IPv4 alone. */
export const listed = (driver: Driver["Service"]) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (mappings) =>
    mappings
      .filter(({ frontendIp }) => !frontendIp.includes(":"))
      .map(
        ({ frontendIp, frontendPort, backendIp, backendPort, state, owner }) =>
          `${frontendIp}:${frontendPort} -> ${backendIp}:${backendPort} ${state} ${owner}`
      )
      .sort()
  )

export const errors = (driver: Driver["Service"]) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (mappings) =>
    mappings.flatMap(({ labels }) => {
      const error = labels.get("portmapper.error")
      return error === undefined ? [] : [`${labels.get("portmapper.container")}: ${error}`]
    })
  )

/** Time for the watch to see an event and act on it. */
export const settle = TestClock.adjust("100 millis")

export const start = (options: Partial<WatchOptions> = {}) =>
  Effect.tap(startWatch({ trustImageLabels: false, ...options }), settle)

/** As `start`, for a part of a test: the watch ends with it, and its ports stay published. */
export const during = <A, E, R>(body: (driver: Driver["Service"]) => Effect.Effect<A, E, R>) =>
  Effect.scoped(Effect.flatMap(start(), body))

/** A port on every address, with any backend. */
export const unmapping = (port: number): Release => ({
  bindings: ["0.0.0.0", "::"].map((text) => ({
    protocol: "tcp",
    host: addressUnsafe(text),
    port,
    backend: { address: undefined, port: 0 }
  })),
  labels: new Map()
})

export const parsed = (text: string) => {
  const result = parsePublish(text)
  if (result._tag === "Failure") throw new Error(result.failure)
  return result.success
}

export const follow = (driver: Driver["Service"], container: string, ...texts: ReadonlyArray<string>) =>
  Effect.scoped(
    driver.followContainer?.({ container, publish: texts.map(parsed), labels: new Map() }) ??
      Effect.die("not offered")
  ).pipe(Effect.provideService(CurrentOwner, "cli"))

export const addresses = (...texts: ReadonlyArray<string>) => texts.map(addressUnsafe)

/** Every row of both families, as `listed`; of a waiting one its error. */
export const rows = (driver: Driver["Service"]) =>
  Effect.map(driver.listPorts ?? Effect.succeed([]), (mappings) =>
    mappings
      .map(
        ({ frontendIp, frontendPort, backendIp, labels, state }) =>
          `${frontendIp}:${frontendPort} -> ${backendIp} ${labels.get("portmapper.error") ?? state}`
      )
      .sort()
  )

export const followInterface = (driver: Driver["Service"], publish: string, owner = "cli") =>
  Effect.scoped(
    driver.followInterface?.({
      to: { v4: addressUnsafe("172.17.0.2"), v6: undefined },
      publish: [parsed(publish)],
      labels: new Map()
    }) ?? Effect.die("not offered")
  ).pipe(Effect.provideService(CurrentOwner, owner))
