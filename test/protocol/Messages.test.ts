import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Arbitrary from "effect/Arbitrary"
import { fromOctets } from "../../src/protocol/Address.ts"
import { decodeText, decodeValue } from "../../src/protocol/GoSchema.ts"
import {
  ErrorResponse,
  ListPortsResponse,
  MapPortsRequest,
  MapPortsResponse,
  UnmapPortsRequest
} from "../../src/protocol/Messages.ts"
import messages from "../vectors/messages.json" with { type: "json" }
import oddInput from "../vectors/odd-input.json" with { type: "json" }
import verdicts from "./verdicts/verdicts.json" with { type: "json" }

const schemas = { MapPortsRequest, MapPortsResponse, UnmapPortsRequest, ErrorResponse }
type Name = keyof typeof schemas

/** The text decoded and encoded again, or the reason why it was refused. */
const again = (name: string, text: string): Result.Result<string, string> => {
  const schema: Schema.Codec<unknown> = schemas[name as Name]
  return Result.match(decodeText(schema)(text), {
    onFailure: (error) => Result.fail(error.message),
    onSuccess: (message) => Result.succeed(JSON.stringify(Schema.encodeSync(schema)(message)))
  })
}

/** Go escapes `<`, `>`, `&` and U+2028/9 where JSON need not. */
const unescaped = (text: string): string =>
  text.replace(/\\(?:u(003c|003e|0026|2028|2029)|.)/g, (whole, code) =>
    code === undefined ? whole : String.fromCharCode(Number.parseInt(code, 16))
  )

describe("the recorded messages", () => {
  it("are 604 messages and 73 odd inputs", () => {
    assert.strictEqual(messages.length, 604)
    assert.strictEqual(oddInput.length, 73)
  })

  it.each(messages)("$type decodes and encodes to the same bytes: $json", ({ type, json }) => {
    assert.deepStrictEqual(again(type, json), Result.succeed(unescaped(json)))
  })

  it.each(oddInput)("$type has the reference's verdict: $json", ({ type, json, accepted, reencoded }) => {
    const result = again(type, json)
    assert.strictEqual(Result.isSuccess(result), accepted)
    if (Result.isSuccess(result)) assert.strictEqual(result.success, unescaped(reencoded ?? ""))
  })
})

describe("odd JSON", () => {
  const sorted = (text: string) => {
    const message = JSON.parse(text)
    return message.Labels ? { ...message, Labels: Object.entries(message.Labels).sort() } : message
  }
  it.each(verdicts)("is decoded as Go decodes it: $json", ({ json, map, unmap }) => {
    for (const [name, verdict] of [
      ["MapPortsRequest", map] as const,
      ["UnmapPortsRequest", unmap] as const
    ]) {
      const result = again(name, json)
      assert.deepStrictEqual(
        Result.isSuccess(result) ? sorted(result.success) : null,
        verdict === null ? null : sorted(verdict)
      )
    }
  })
})

describe("messages", () => {
  const octets = Arbitrary.schema(
    Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 })))
  )
  const address = Arbitrary.map(octets, (some) => {
    if (some.length === 0) return ""
    const padded = [...some, ...Array<number>(16).fill(0)]
    return fromOctets(Uint8Array.from(padded.slice(0, some.length % 2 === 0 ? 4 : 16))).text
  })
  const uint16 = Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 })))
  const text = Arbitrary.map(Arbitrary.schema(Schema.String), (some) => some.toWellFormed())
  const labels = Arbitrary.map(
    Arbitrary.array(Arbitrary.all([text, text])),
    (entries): Record<string, string> | null => (entries.length > 5 ? null : Object.fromEntries(entries))
  )
  const bool = Arbitrary.schema(Schema.Boolean)
  const binding = Arbitrary.map(
    Arbitrary.all([uint16, address, uint16, address, uint16, bool, bool, text]),
    ([proto, backend, backendPort, frontend, frontendPort, discard, allow, error]) => ({
      Proto: proto,
      BackendIP: backend,
      BackendPort: backendPort,
      FrontendIP: frontend,
      FrontendPort: frontendPort,
      DiscardReq: discard,
      AllowForwarding: allow,
      NAT: allow ? { FromAddr: frontend, FromPort: frontendPort } : null,
      Error: discard ? error : null
    })
  )
  const request = Arbitrary.map(
    Arbitrary.all([Arbitrary.array(binding), bool, labels]),
    ([bindings, none, some]) => ({ PortBindings: none ? null : bindings, Labels: some })
  )

  it.prop("come back the same from text and from plain values", [request], ([message]) => {
    const json = JSON.stringify(message)
    const encode = Schema.encodeSync(UnmapPortsRequest)
    const fromText = decodeText(UnmapPortsRequest)(json)
    const fromValue = decodeValue(UnmapPortsRequest)(message)
    assert.strictEqual(JSON.stringify(encode(Result.getOrThrow(fromText))), json)
    assert.strictEqual(JSON.stringify(encode(Result.getOrThrow(fromValue))), json)
  })

  it("decode plain values by Go's rules", () => {
    const plain = { reqs: [{ proto: 6, BACKENDIP: "::FFFF:A00:1", Extra: 1 }, null], labels: undefined }
    const decoded = Result.getOrThrow(decodeValue(MapPortsRequest)(plain))
    const zero = {
      Proto: 0,
      BackendIP: "",
      BackendPort: 0,
      FrontendIP: "",
      FrontendPort: 0,
      FrontendPortEnd: 0
    }
    assert.deepStrictEqual(Schema.encodeSync(MapPortsRequest)(decoded), {
      Reqs: [{ ...zero, Proto: 6, BackendIP: "::ffff:10.0.0.1" }, zero],
      Labels: null
    })
  })

  it("keep every label, also one named __proto__", () => {
    const decoded = Result.getOrThrow(
      decodeText(MapPortsRequest)('{"Labels":{"__proto__":"x","10":"a","b":""}}')
    )
    assert.deepStrictEqual(
      decoded.Labels,
      new Map([
        ["__proto__", "x"],
        ["10", "a"],
        ["b", ""]
      ])
    )
    const encoded = JSON.stringify(Schema.encodeSync(MapPortsRequest)(decoded))
    assert.strictEqual(encoded, '{"Reqs":null,"Labels":{"10":"a","__proto__":"x","b":""}}')
  })

  it("write null in the list of mappings for what is not counted", () => {
    const json =
      '{"Mappings":[{"Proto":6,"FrontendIP":"0.0.0.0","FrontendPort":8080,"BackendIP":"172.17.0.2","BackendPort":80,' +
      '"Mode":"nat","Owner":"engine","State":"live","Since":"2026-01-02T03:04:05.000Z","Labels":{"a":"b"},' +
      '"Connections":3,"BytesIn":9007199254740991,"BytesOut":null,"Service":"web",' +
      '"Refused":{"Allow":null,"Connections":4,"Rate":0,"RatePerSource":null},' +
      '"Slots":{"Has":22,"Of":64},"Open":3,"Container":"web-1/0123456789ab","Reason":"it is late","Host":"b","HostAddress":"10.0.0.2"}]}'
    const decoded = Result.getOrThrow(decodeText(ListPortsResponse)(json))
    assert.strictEqual(JSON.stringify(Schema.encodeSync(ListPortsResponse)(decoded)), json)
  })
})
