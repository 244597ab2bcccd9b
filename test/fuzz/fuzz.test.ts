import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fuzzInputs } from "../../src/testing/index.ts"
import { servedWire } from "../conformance/plugin.ts"
import { seed } from "../property/seed.ts"
import { bytesOf, corpusOf, decoders } from "./decoders.ts"
import { sendBytes } from "./http.ts"

console.log(`the fuzzer's seed: PORTMAPPER_SEED=${seed}`)

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true })

describe("whatever the bytes", () => {
  for (const { name, corpus, words, take } of decoders)
    it(`a decoder neither breaks nor hangs: ${name}`, () => {
      const inputs = fuzzInputs(seed, corpusOf(corpus), bytesOf(words))
      for (let count = 0; count < 3000; count++) {
        const text = utf8.decode(inputs.next().value)
        try {
          take(text)
        } catch (error) {
          assert.fail(`${JSON.stringify(text)}: ${error instanceof Error ? error.message : error}`)
        }
      }
    })

  it.live("the plugin's socket answers the next request", () =>
    Effect.gen(function* () {
      const { socketPath, wire } = yield* servedWire()
      const inputs = fuzzInputs(
        seed,
        corpusOf("http"),
        bytesOf(["\r\n", ":", "Content-Length: 9\r\n", "chunked"])
      )
      for (let batch = 0; batch < 10; batch++) {
        const some = Array.from({ length: 20 }, () => inputs.next().value)
        yield* Effect.promise(() => Promise.all(some.map((bytes) => sendBytes(socketPath, bytes))))
        const request = {
          method: "POST",
          path: "/PortMapper.ListPorts",
          headers: [["Host", "x"]],
          body: "{}"
        } as const
        assert.strictEqual((yield* wire.send(request)).status, 200)
      }
    }).pipe(Effect.scoped)
  )
})
