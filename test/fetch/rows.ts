/** A worker that has a handler for each row of the transports' table: `/INDEX/METHOD`. `/` names globals that are Node's. */
import { toWebHandler, type WebHandler } from "../../adapters/fetch/index.ts"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { table } from "../transports/table.ts"

const handlers = new Map<number, WebHandler>()

const handlerOf = (index: number): WebHandler => {
  const made =
    handlers.get(index) ??
    toWebHandler(table[index]?.driver ?? PortMapper.layerMemory(), { owner: "default" })
  handlers.set(index, made)
  return made
}

export default {
  fetch: (request: Request): Promise<Response> | Response => {
    const [, index = "", path] = new URL(request.url).pathname.split("/")
    if (path === undefined)
      return Response.json(["Buffer", "process", "global", "require"].filter((name) => name in globalThis))
    return handlerOf(Number(index))(new Request(new URL(`/${path}`, request.url), request))
  }
}
