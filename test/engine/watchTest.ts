/** Tests of the watch with everything that it uses in memory. */
import { it } from "@effect/vitest"
import { Effect, Layer, Logger, type Scope } from "effect"
import { WatchRecord } from "../../adapters/engine/WatchRecord.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { InterfaceAddresses } from "../../src/ports/InterfaceAddresses.ts"
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
