/**
 * `node --import tsx scripts/fuzz.ts [INPUTS [PART-OF-A-NAME]]`: 1,000,000 inputs to each decoder, over the Unix socket
 * too. Ends with status 1 at the first input that breaks one, hangs it or makes it hold ever more memory.
 */
import * as V8 from "node:v8"
import * as Vm from "node:vm"
import { Effect } from "effect"
import { fuzzInputs } from "../src/testing/index.ts"
import { servedWire } from "../test/conformance/plugin.ts"
import { bytesOf, corpusOf, decoders } from "../test/fuzz/decoders.ts"
import { sendBytes } from "../test/fuzz/http.ts"
import { seed } from "../test/property/seed.ts"

const count = Number(process.argv[2] ?? 1_000_000)
const wanted = process.argv[3] ?? ""
const slowMillis = 1000
const grownBytes = 50 * 1024 * 1024

V8.setFlagsFromString("--expose-gc")
const collect = Vm.runInNewContext("gc") as () => void

/** What is held once all that nobody holds is gone. */
const heldBytes = (): number => {
  collect()
  return process.memoryUsage().heapUsed
}

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

console.log(`PORTMAPPER_SEED=${seed}, ${count} inputs each`)

const report = (name: string, began: number, before: number) => {
  const seconds = (performance.now() - began) / 1000
  const grown = heldBytes() - before
  console.log(
    `${name}: ${count} inputs in ${seconds.toFixed(1)} s, ${(count / seconds).toFixed(0)} a second, memory +${(grown / 1048576).toFixed(0)} MiB`
  )
  if (grown > grownBytes) throw new Error(`${name} holds ${grown} bytes more than before`)
}

for (const { name, corpus, words, take } of decoders) {
  if (!name.includes(wanted)) continue
  const inputs = fuzzInputs(seed, corpusOf(corpus), bytesOf(words))
  const [began, before] = [performance.now(), heldBytes()]
  for (let index = 0; index < count; index++) {
    const text = utf8.decode(inputs.next().value)
    const from = performance.now()
    try {
      take(text)
    } catch (error) {
      throw new Error(`${name}: input ${index}: ${JSON.stringify(text)}`, { cause: error })
    }
    if (performance.now() - from > slowMillis) throw new Error(`${name} is slow: ${JSON.stringify(text)}`)
  }
  report(name, began, before)
}

const http = "HTTP over the Unix socket"
if (http.includes(wanted))
  await Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const { socketPath, wire } = yield* servedWire()
        const inputs = fuzzInputs(
          seed,
          corpusOf("http"),
          bytesOf(["\r\n", ":", "Content-Length: 9\r\n", "chunked"])
        )
        const [began, before] = [performance.now(), heldBytes()]
        for (let done = 0; done < count; done += 50) {
          const some = Array.from({ length: 50 }, () => inputs.next().value)
          yield* Effect.promise(() => Promise.all(some.map((bytes) => sendBytes(socketPath, bytes))))
        }
        const request = {
          method: "POST",
          path: "/PortMapper.ListPorts",
          headers: [["Host", "x"]],
          body: "{}"
        } as const
        const { status } = yield* wire.send(request)
        if (status !== 200) throw new Error(`status ${status} at the end`)
        report(http, began, before)
      })
    )
  )
