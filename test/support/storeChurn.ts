/**
 * Runs in its own process, until it is killed: puts mappings into the store of the given folder and removes them, and
 * prints `? OPERATION` before each and `! OPERATION` once it is acknowledged.
 */
import * as Fs from "node:fs"
import { Effect } from "effect"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { MappingStore, type StoredState } from "../../src/mapper/MappingStore.ts"
import { mapping, records } from "./mappings.ts"

const [directory = "", seed = "0"] = process.argv.slice(2)
const states: ReadonlyArray<StoredState> = ["applied", "answered"]

/** Mulberry32. */
let state = Number(seed)
const random = (below: number): number => {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) % below
}

const print = (text: string) => Fs.writeSync(1, `${text}\n`)

const churn = Effect.gen(function* () {
  const store = yield* MappingStore
  print("ready")
  while (true) {
    const first = 1 + random(200)
    const ports = Array.from({ length: 1 + random(3) }, (_, index) => first + index)
    const mappings = ports.map((port) =>
      mapping(`tcp 0.0.0.0 172.17.0.${1 + random(250)}:80`, port, {
        labels: new Map([["filler", "x".repeat(random(3000))]])
      })
    )
    const put = states[random(3)]
    const line =
      put === undefined
        ? `remove ${ports.join(" ")}`
        : `${put} ${mappings.map(({ port, backend }) => `${port}=${backend.address.text}`).join(" ")}`
    print(`? ${line}`)
    yield* put === undefined ? store.remove(mappings) : store.put(records(mappings, put))
    print(`! ${line}`)
  }
})

await Effect.runPromise(Effect.provide(churn, SqliteMappingStore.layer(directory)))
