/**
 * A worker with a handler for each row of the transports' table: `/INDEX/METHOD`. `/` lists globals that are Node's,
 * and `/slow/METHOD` is a Durable Object whose mapper is slow at each of its steps.
 */
import { Effect, Layer } from "effect"
import { toWebHandler, type WebHandler } from "../../adapters/fetch/index.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Steps } from "../../src/memory/Steps.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { table } from "../transports/table.ts"

const handlers = new Map<number, WebHandler>()

const handlerOf = (index: number): WebHandler => {
  const made =
    handlers.get(index) ??
    toWebHandler(table[index]?.driver ?? PortMapper.layerMemory(), { owner: "default" })
  handlers.set(index, made)
  return made
}

const slowed = Layer.effect(
  Driver,
  Effect.map(Driver, ({ mapPorts, unmapPorts }) =>
    Driver.of({
      mapPorts: (group) => Effect.provideService(mapPorts(group), Steps, () => Effect.sleep("1 millis")),
      unmapPorts
    })
  )
).pipe(Layer.provide(PortMapper.layerMemory()))

export class Slow {
  readonly fetch = toWebHandler(slowed)
}

interface Bindings {
  readonly SLOW: {
    readonly idFromName: (name: string) => unknown
    readonly get: (id: unknown) => { readonly fetch: (request: Request) => Promise<Response> }
  }
}

export default {
  fetch: (request: Request, bindings?: Bindings): Promise<Response> | Response => {
    const [, index = "", path] = new URL(request.url).pathname.split("/")
    if (index === "slow" && bindings !== undefined)
      return bindings.SLOW.get(bindings.SLOW.idFromName("")).fetch(
        new Request(new URL(`/${path}`, request.url), request)
      )
    if (path === undefined)
      return Response.json(["Buffer", "process", "global", "require"].filter((name) => name in globalThis))
    return handlerOf(Number(index))(new Request(new URL(`/${path}`, request.url), request))
  }
}
