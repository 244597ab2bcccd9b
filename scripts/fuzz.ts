/**
 * `node --import tsx scripts/fuzz.ts [INPUTS [PART-OF-A-NAME]]`: sends 1,000,000 inputs to each decoder and over
 * each transport. Exits with status 1 at the first input that breaks or hangs one, and if memory or descriptors
 * leak.
 */
import * as Fs from "node:fs"
import * as V8 from "node:v8"
import * as Vm from "node:vm"
import { Effect } from "effect"
import { fuzzInputs } from "../src/testing/index.ts"
import { bytesOf, corpusOf, decoders } from "../test/fuzz/decoders.ts"
import { sendAll, transports } from "../test/fuzz/transports.ts"
import { seed } from "../test/property/seed.ts"

const count = Number(process.argv[2] ?? 1_000_000)
const wanted = process.argv[3] ?? ""
const slowMillis = 1000
const grownBytes = 50 * 1024 * 1024

V8.setFlagsFromString("--expose-gc")
const collect = Vm.runInNewContext("gc") as () => void

/** The memory in use after a garbage collection. */
const heldBytes = (): number => {
  collect()
  return process.memoryUsage().heapUsed
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

console.log(`PORTMAPPER_SEED=${seed}, ${count} inputs each`)

const descriptors = (): number => Fs.readdirSync("/proc/self/fd").length

/** Call it at the end, once everything opened for the run is closed. */
const watch = (name: string, inputs: number) => {
  const before = { at: performance.now(), bytes: heldBytes(), descriptors: descriptors() }
  return () => {
    const seconds = (performance.now() - before.at) / 1000
    const grown = heldBytes() - before.bytes
    const left = descriptors() - before.descriptors
    console.log(
      `${name}: ${inputs} inputs in ${seconds.toFixed(1)} s, ${(inputs / seconds).toFixed(0)} a second, memory ${(grown / 1048576).toFixed(1)} MiB, descriptors ${left}`
    )
    if (grown > grownBytes) throw new Error(`${name} holds ${grown} bytes more than before`)
    if (left > 0) throw new Error(`${name} holds ${left} descriptors more than before`)
  }
}

for (const { name, corpus, words, take, share = 1 } of decoders) {
  if (!name.includes(wanted)) continue
  const inputs = fuzzInputs(seed, corpusOf(corpus), bytesOf(words))
  const end = watch(name, count * share)
  for (let index = 0; index < count * share; index++) {
    const bytes = inputs.next().value
    const text = utf8.decode(bytes)
    const from = process.cpuUsage()
    try {
      take(text, bytes)
    } catch (error) {
      throw new Error(`${name}: input ${index}: ${JSON.stringify(text)}`, { cause: error })
    }
    if (process.cpuUsage(from).user > slowMillis * 1000)
      throw new Error(`${name} is slow: ${JSON.stringify(text)}`)
  }
  end()
}

for (const transport of transports) {
  const { name, corpus, words, open, answer } = transport
  if (!name.includes(wanted)) continue
  const inputs = fuzzInputs(seed, corpusOf(corpus), bytesOf(words))
  const fuzz = Effect.gen(function* () {
    const opened = yield* open
    const asked = () => Effect.promise(opened.ask)
    // Warms up, so that one-time allocations are not counted.
    yield* Effect.promise(() => sendAll(opened, transport, inputs, 1000))
    const end = watch(name, count)
    yield* Effect.promise(() => sendAll(opened, transport, inputs, count))
    const last = yield* asked()
    if (last !== answer) throw new Error(`${name} answers ${last} at the end`)
    // The other ends of the closed connections close a moment later.
    yield* Effect.sleep(1000)
    end()
  })
  await Effect.runPromise(Effect.scoped(fuzz))
}
