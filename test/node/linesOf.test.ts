import type { IncomingMessage } from "node:http"
import { Readable } from "node:stream"
import { assert, describe, it } from "@effect/vitest"
import { linesOf } from "../../adapters/node/linesOf.ts"

const lines = (maxLength: number, ...chunks: ReadonlyArray<string | Buffer>) =>
  Array.fromAsync(linesOf(Readable.from(chunks.map(Buffer.from)) as IncomingMessage, maxLength))

describe("the lines of an answer", () => {
  it("are complete, however the answer is cut, and the last one without an end is none", async () => {
    const text = Buffer.from('{"a":"é"}\n\n{"b":1}\nrest')
    const expected = ['{"a":"é"}', "", '{"b":1}']
    assert.deepStrictEqual(await lines(100, text), expected)
    assert.deepStrictEqual(await lines(100, ...[...text].map((byte) => Buffer.of(byte))), expected)
  })

  it("have at most so many characters, in one part or in several, ended or not", async () => {
    const refused = (...chunks: ReadonlyArray<string>) =>
      lines(4, ...chunks).then(String, ({ message }: Error) => message)
    assert.deepStrictEqual(await lines(4, "1234\n", "12", "34", "\n1234\n"), ["1234", "1234", "1234"])
    for (const chunks of [["12345\n"], ["123", "45"], ["12\n123", "45\n"], ["12\n12345\n"]])
      assert.strictEqual(await refused(...chunks), "a line is longer than 4 characters", `${chunks}`)
  })
})
