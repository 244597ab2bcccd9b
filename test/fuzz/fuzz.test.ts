import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fuzzInputs } from "../../src/testing/index.ts"
import { seed } from "../property/seed.ts"
import { bytesOf, corpusOf, decoders } from "./decoders.ts"
import { sendAll, transports } from "./transports.ts"

console.log(`the fuzzer's seed: PORTMAPPER_SEED=${seed}`)

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

describe("with any bytes", () => {
  for (const { name, corpus, words, take, share = 1 } of decoders)
    it(`a decoder neither breaks nor hangs: ${name}`, () => {
      const inputs = fuzzInputs(seed, corpusOf(corpus), bytesOf(words))
      for (let count = 0; count < 3000 * share; count++) {
        const bytes = inputs.next().value
        const text = utf8.decode(bytes)
        try {
          take(text, bytes)
        } catch (error) {
          assert.fail(`${JSON.stringify(text)}: ${error instanceof Error ? error.message : error}`)
        }
      }
    })

  for (const transport of transports)
    it.live(`a transport answers the next request: ${transport.name}`, () =>
      Effect.gen(function* () {
        const opened = yield* transport.open
        const inputs = fuzzInputs(seed, corpusOf(transport.corpus), bytesOf(transport.words))
        for (let batch = 0; batch < 10; batch++) {
          yield* Effect.promise(() => sendAll(opened, transport, inputs, 20))
          assert.strictEqual(yield* Effect.promise(opened.ask), transport.answer)
        }
      }).pipe(Effect.scoped)
    )
})
