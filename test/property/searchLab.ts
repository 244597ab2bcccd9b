/**
 * Searches in the lab, with the real plugin, for as many seconds as the first argument says or until it finds a fault;
 * then prints it and exits 1. `PORTMAPPER_SEED` sets the first seed.
 */
import * as Path from "node:path"
import { Effect } from "effect"
import { exploreRemote, foundText } from "../../src/testing/index.ts"
import { labHost as host, makeLabTarget } from "./labTarget.ts"
import { seed } from "./seed.ts"

const seconds = Number(process.argv[2] ?? 60)
const entry = Path.resolve(import.meta.dirname, "../../src/testing/index.ts")

const search = Effect.gen(function* () {
  const target = yield* makeLabTarget
  const began = performance.now()
  const elapsed = () => (performance.now() - began) / 1000
  let scripts = 0
  for (; elapsed() < seconds; scripts++) {
    const found = yield* exploreRemote({
      ...{ seed: (seed + scripts) | 0, runs: 1, host, target, reach: "host", sctp: false },
      noticed: () => console.log(`on a host of the lab, after ${elapsed().toFixed(1)} s:`)
    })
    if (found === undefined) continue
    console.log(foundText(found, host, entry))
    process.exitCode = 1
    return
  }
  console.log(`nothing found from seed ${seed}: ${scripts} scripts in ${elapsed().toFixed(0)} s`)
})

await Effect.runPromise(Effect.scoped(search))
