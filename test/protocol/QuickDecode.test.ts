import { assert, describe, it } from "@effect/vitest"
import { Result, type Schema, SchemaParser } from "effect"
import fc from "fast-check"
import { JsonObject, parse } from "../../src/protocol/GoJson.ts"
import { decodeValue } from "../../src/protocol/GoSchema.ts"
import { ListPortsResponse, MapGroupsRequest, MapPortsResponse } from "../../src/protocol/Messages.ts"

/** Field values, wrong for most of the fields. */
const odd = fc.constantFrom<unknown>(
  ...[
    null,
    undefined,
    0,
    -0,
    65536,
    -1,
    1.5,
    2 ** 53,
    true,
    "",
    "text",
    "lone \ud800",
    "1.2.3",
    "fe80::1%eth0"
  ],
  ...[[], {}, [null], Result.getOrThrow(parse("80.0")), new Map([["a", "b"]])]
)
const port = fc.integer({ min: 0, max: 65535 })
const address = fc.constantFrom("", "172.17.0.2", "::ffff:10.0.0.1", "fe80::1%eth0", "::1")
const text = fc.constantFrom("", "text", "lone \ud800")

/** An object with some of these fields, in any order and case, some repeated or odd; as a tree of `parse` or plain. */
const objectOf = (fields: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<unknown> => {
  const entry = fc
    .constantFrom(...Object.entries(fields))
    .chain(([name, right]) =>
      fc.tuple(
        fc.oneof(
          { weight: 12, arbitrary: fc.constant(name) },
          fc.constantFrom(name.toLowerCase(), name.replace("s", "\u017f"), "X", "__proto__")
        ),
        fc.oneof({ weight: 12, arbitrary: right }, odd)
      )
    )
  const entries = fc.oneof(
    { weight: 8, arbitrary: fc.uniqueArray(entry, { selector: ([name]) => name, maxLength: 6 }) },
    fc.array(entry, { maxLength: 6 })
  )
  return fc
    .tuple(entries, fc.boolean())
    .map(([all, parsed]) => (parsed ? new JsonObject(all as JsonObject["entries"]) : Object.fromEntries(all)))
}

const listOf = (item: fc.Arbitrary<unknown>) => fc.oneof(fc.constant(null), fc.array(item, { maxLength: 3 }))
const labels = objectOf({ a: text, "b.s": text })
const request = {
  Proto: port,
  BackendIP: address,
  BackendPort: port,
  FrontendIP: address,
  FrontendPort: port
}
const binding = {
  ...request,
  DiscardReq: fc.boolean(),
  AllowForwarding: fc.boolean(),
  NAT: objectOf({ FromAddr: address, FromPort: port }),
  Error: text
}
const mapping = { ...request, Mode: text, Since: text, Labels: labels, Connections: port, BytesIn: port }

const messages = [
  [
    "MapGroupsRequest",
    MapGroupsRequest,
    objectOf({ Groups: listOf(objectOf({ Reqs: listOf(objectOf(request)), Labels: labels })) })
  ],
  ["MapPortsResponse", MapPortsResponse, objectOf({ PortBindings: listOf(objectOf(binding)), Err: text })],
  ["ListPortsResponse", ListPortsResponse, objectOf({ Mappings: listOf(objectOf(mapping)) })]
] as const

describe("the fast path of decoding", () => {
  it.each(messages)(
    "returns for a %s what its schema returns, and fails where that does",
    (_, schema, values) => {
      const quickly = decodeValue(schema as Schema.ConstraintDecoder<unknown>)
      const bySchema = SchemaParser.decodeUnknownResult(schema as Schema.ConstraintDecoder<unknown>)
      let right = 0
      let wrong = 0
      fc.assert(
        fc.property(values, (value) => {
          const expected = bySchema(value)
          const decoded = quickly(value)
          assert.strictEqual(decoded._tag, expected._tag)
          if (Result.isFailure(decoded) || Result.isFailure(expected)) return void wrong++
          right++
          assert.deepStrictEqual(decoded.success, expected.success)
          assert.deepStrictEqual(ordered(decoded.success), ordered(expected.success))
        }),
        { numRuns: 3000 }
      )
      assert.isAbove(right, 300)
      assert.isAbove(wrong, 300)
    }
  )
})

/** The keys of all objects in it, in order. */
const ordered = (value: unknown): unknown =>
  typeof value !== "object" || value === null
    ? null
    : [value.constructor.name, ...Object.entries(value).map(([key, item]) => [key, ordered(item)])]
