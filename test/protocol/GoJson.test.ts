import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { JsonNumber, JsonObject, maxDepth, parse, preview, stringify } from "../../src/protocol/GoJson.ts"
import verdicts from "./verdicts/verdicts.json" with { type: "json" }

describe("parse", () => {
  it.each(verdicts)("agrees with Go, in verdict and error text, on $json", ({ json, syntax }) => {
    const result = parse(json)
    assert.strictEqual(Result.isFailure(result) ? result.failure : null, syntax)
  })

  it("keeps the entries of an object in order, repeated keys and __proto__ included", () => {
    assert.deepStrictEqual(
      parse('{"b":1,"a":[null,true],"b":{"__proto__":"x"},"10":2}'),
      Result.succeed(
        new JsonObject([
          ["b", 1],
          ["a", [null, true]],
          ["b", new JsonObject([["__proto__", "x"]])],
          ["10", 2]
        ])
      )
    )
  })

  it("keeps the text of a number that is not an exact integer", () => {
    assert.deepStrictEqual(
      parse("[80,80.0,8e1,9007199254740991,9007199254740992,1e400,-0]"),
      Result.succeed([
        80,
        new JsonNumber("80.0"),
        new JsonNumber("8e1"),
        9007199254740991,
        new JsonNumber("9007199254740992"),
        new JsonNumber("1e400"),
        -0
      ])
    )
  })

  it("decodes escapes, and replaces a lone surrogate by U+FFFD", () => {
    assert.deepStrictEqual(
      parse('["\\u0041\\n\\/\\\\\\"", "\\ud83d\\ude00", "\\ud800", "\\ud800\\ud83d\\ude00", "a\ud800"]'),
      Result.succeed(['A\n/\\"', "😀", "\ufffd", "\ufffd😀", "a\ufffd"])
    )
  })

  it("reads 500 levels of nesting and refuses one more", () => {
    const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels)
    assert.isTrue(Result.isSuccess(parse(nested(maxDepth))))
    assert.deepStrictEqual(parse(nested(maxDepth + 1)), Result.fail("nested deeper than 500 levels"))
    assert.deepStrictEqual(parse('{"a":'.repeat(1_000_000)), Result.fail("nested deeper than 500 levels"))
  })

  it.prop("reads what JSON.stringify writes", [Schema.Json], ([value]) => {
    const tree = Result.getOrThrow(parse(JSON.stringify(value)))
    assert.deepStrictEqual(JSON.parse(stringify(tree)), wellFormed(JSON.parse(JSON.stringify(value))))
  })
})

const wellFormed = (value: Schema.Json): Schema.Json => {
  if (typeof value === "string") return value.toWellFormed()
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return value.map(wellFormed)
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key.toWellFormed(), wellFormed(item)])
  )
}

describe("stringify", () => {
  it("writes a tree as it was read", () => {
    const text = '{"b":1.50,"a":[null,true,"\\n"],"b":{},"10":[]}'
    assert.strictEqual(stringify(Result.getOrThrow(parse(text))), text)
  })

  it("writes plain values that contain trees", () => {
    const id = Result.getOrThrow(parse("1.0"))
    assert.strictEqual(stringify({ jsonrpc: "2.0", id, gone: undefined }), '{"jsonrpc":"2.0","id":1.0}')
  })
})

describe("preview", () => {
  it("shows a short value whole and a long one shortened to the limit", () => {
    assert.strictEqual(preview({ a: [1, "x", null] }), '{"a":[1,"x",null]}')
    assert.strictEqual(preview("x".repeat(58)), `"${"x".repeat(58)}"`)
    assert.strictEqual(preview("x".repeat(59)), `"${"x".repeat(58)}…`)
    assert.strictEqual(preview(Array.from({ length: 1e6 }, () => 1)), `[${"1,".repeat(29)}…`)
  })

  it("shows values that are not JSON, and does not loop", () => {
    const circle: { me?: unknown } = {}
    circle.me = circle
    assert.strictEqual(preview(undefined), "undefined")
    assert.strictEqual(preview(10n), "10")
    assert.strictEqual(preview(Number.NaN), "NaN")
    assert.strictEqual(preview(-0), "-0")
    assert.strictEqual(preview(new JsonNumber("8e1")), "8e1")
    assert.isAtMost(preview(circle).length, 60)
    assert.isAtMost(preview(() => "a function is shown as its source, which may well be long").length, 60)
  })
})
