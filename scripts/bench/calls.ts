/** The time of `MapPorts` and of `UnmapPorts`, one port after the other. */
import { labRequest } from "../../test/support/requests.ts"
import type { Plugin } from "./plugin.ts"

/** In microseconds. */
export interface Samples {
  readonly map: Array<number>
  readonly unmap: Array<number>
}

export const newSamples = (): Samples => ({ map: [], unmap: [] })

/** `portOf` returns the port of each call, 0 for any. */
export const measureCalls = async (
  call: Plugin["call"],
  { map, unmap }: Samples,
  calls: number,
  portOf: (index: number) => number
): Promise<void> => {
  for (let index = 0; index < calls; index++) {
    const begun = process.hrtime.bigint()
    const { PortBindings } = await call("MapPorts", labRequest(portOf(index)))
    const mapped = process.hrtime.bigint()
    await call("UnmapPorts", { PortBindings, Labels: {} })
    map.push(Number(mapped - begun) / 1000)
    unmap.push(Number(process.hrtime.bigint() - mapped) / 1000)
  }
}
