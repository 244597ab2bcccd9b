import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { answer, type Invoke, methodNotFound, readMessage } from "../../adapters/stdio/JsonRpc.ts"
import { JsonNumber, JsonObject } from "../../src/protocol/GoJson.ts"
import { wideBatch } from "../support/unread.ts"

/** The server of the specification's examples; `ran` lists the executed methods. */
const server = () => {
  const ran: Array<string> = []
  const invoke: Invoke<never> = ({ method, params }) => {
    ran.push(method)
    const list = Array.isArray(params) ? params : []
    const named = new Map(params instanceof JsonObject ? params.entries : [])
    switch (method) {
      case "subtract":
        return Effect.succeed(
          list.length > 0 ? list[0] - list[1] : Number(named.get("minuend")) - Number(named.get("subtrahend"))
        )
      case "sum":
        return Effect.succeed(list.reduce((a, b) => a + b, 0))
      case "get_data":
        return Effect.succeed(["hello", 5])
      case "update":
      case "notify_hello":
      case "notify_sum":
        return Effect.succeed("unasked")
      default:
        return Effect.fail(methodNotFound(method))
    }
  }
  return { ran, ask: (text: string) => Effect.map(answer(text, invoke), (line) => line && JSON.parse(line)) }
}

/** Fields that the specification leaves to the server are not compared. */
const withoutData = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(withoutData)
  if (typeof value !== "object" || value === null) return value
  const { data: _, ...rest } = value as Record<string, unknown>
  return Object.fromEntries(Object.entries(rest).map(([key, item]) => [key, withoutData(item)]))
}

const parseError = { jsonrpc: "2.0", error: { code: -32700, message: "Parse error" }, id: null }
const invalidRequest = { jsonrpc: "2.0", error: { code: -32600, message: "Invalid Request" }, id: null }

/** Section 7 of the specification, in its order. */
const examples: ReadonlyArray<readonly [title: string, sent: string, answered: unknown]> = [
  [
    "positional parameters",
    '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
    { jsonrpc: "2.0", result: 19, id: 1 }
  ],
  [
    "positional parameters, the other way round",
    '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
    { jsonrpc: "2.0", result: -19, id: 2 }
  ],
  [
    "named parameters",
    '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
    { jsonrpc: "2.0", result: 19, id: 3 }
  ],
  [
    "named parameters in another order",
    '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
    { jsonrpc: "2.0", result: 19, id: 4 }
  ],
  ["a notification", '{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', undefined],
  ["a notification of a method that is not there", '{"jsonrpc": "2.0", "method": "foobar"}', undefined],
  [
    "a method that is not there",
    '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
    { jsonrpc: "2.0", error: { code: -32601, message: "Method not found" }, id: "1" }
  ],
  ["invalid JSON", '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', parseError],
  ["an invalid request", '{"jsonrpc": "2.0", "method": 1, "params": "bar"}', invalidRequest],
  [
    "a batch that is invalid JSON",
    '[\n  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},\n  {"jsonrpc": "2.0", "method"\n]',
    parseError
  ],
  ["an empty array", "[]", invalidRequest],
  ["an invalid batch that is not empty", "[1]", [invalidRequest]],
  ["an invalid batch", "[1,2,3]", [invalidRequest, invalidRequest, invalidRequest]],
  [
    "a batch",
    `[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]`,
    [
      { jsonrpc: "2.0", result: 7, id: "1" },
      { jsonrpc: "2.0", result: 19, id: "2" },
      invalidRequest,
      { jsonrpc: "2.0", error: { code: -32601, message: "Method not found" }, id: "5" },
      { jsonrpc: "2.0", result: ["hello", 5], id: "9" }
    ]
  ],
  [
    "a batch of notifications only",
    '[{"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]}, {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]',
    undefined
  ]
]

describe("the specification's examples", () => {
  for (const [title, sent, answered] of examples) {
    it.effect(`${title} gets the specification's answer`, () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(withoutData(yield* server().ask(sent)), answered)
      })
    )
  }
})

describe("a message", () => {
  it.effect("is executed in order, notifications too", () =>
    Effect.gen(function* () {
      const { ran, ask } = server()
      const batch = ["update", "sum", "notify_hello", "subtract"].map((method, index) => ({
        jsonrpc: "2.0",
        method,
        params: [2, 1],
        ...(index % 2 === 1 ? { id: index } : {})
      }))
      assert.deepStrictEqual(yield* ask(JSON.stringify(batch)), [
        { jsonrpc: "2.0", result: 3, id: 1 },
        { jsonrpc: "2.0", result: 1, id: 3 }
      ])
      assert.deepStrictEqual(ran, ["update", "sum", "notify_hello", "subtract"])
    })
  )

  it.effect("is answered with the same id", () =>
    Effect.gen(function* () {
      for (const id of ["0", "-1", "1.5", "1e400", "12345678901234567890", "null", '""', '"\\"\\u00e9\\n"']) {
        const text = yield* answer(`{"jsonrpc":"2.0","method":"sum","id":${id}}`, () => Effect.succeed(0))
        assert.strictEqual(text, `{"jsonrpc":"2.0","result":0,"id":${id.replace("\\u00e9", "é")}}`)
      }
    })
  )

  it("is refused with the reason", () => {
    const refusals = [
      ["{}", null, 'jsonrpc must be "2.0"'],
      ['{"jsonrpc":2.0,"method":"m","id":1}', 1, 'jsonrpc must be "2.0"'],
      ['{"jsonrpc":"1.0","method":"m","id":1}', 1, 'jsonrpc must be "2.0"'],
      ['{"jsonrpc":"2.0","Method":"m","id":"a"}', "a", "method must be a string"],
      ['{"jsonrpc":"2.0","result":1,"id":1}', 1, "method must be a string"],
      ['{"jsonrpc":"2.0","method":"m","params":null,"id":1}', 1, "params must be an object or an array"],
      ['{"jsonrpc":"2.0","method":"m","params":"x","id":1}', 1, "params must be an object or an array"],
      ['{"jsonrpc":"2.0","method":"m","id":true}', null, "id must be a string, a number or null"],
      ['{"jsonrpc":"2.0","method":"m","id":{}}', null, "id must be a string, a number or null"],
      ['{"jsonrpc":"2.0","method":"m","id":[1]}', null, "id must be a string, a number or null"],
      ["[]", null, "a batch must hold 1 to 1000 requests (it holds 0)"],
      [wideBatch(1000_000), null, "a batch must hold 1 to 1000 requests (it holds 499999)"],
      ["null", null, "a request must be an object"],
      ['"x"', null, "a request must be an object"]
    ] as const
    for (const [text, id, detail] of refusals) {
      assert.deepStrictEqual(readMessage(text), {
        _tag: "Refused",
        id,
        error: { code: -32600, message: "Invalid Request", data: { detail } }
      })
    }
  })

  it("keeps what JSON.parse loses: repeated keys, the text of a number", () => {
    const message = readMessage('{"jsonrpc":"2.0","method":"m","params":{"a":1.0,"a":2,"__proto__":3}}')
    assert.deepStrictEqual(message, {
      _tag: "Call",
      method: "m",
      params: new JsonObject([
        ["a", new JsonNumber("1.0")],
        ["a", 2],
        ["__proto__", 3]
      ]),
      id: undefined
    })
  })

  it("may contain a member twice, of which the last counts", () => {
    assert.deepStrictEqual(readMessage('{"jsonrpc":"2.0","method":"a","method":"b","id":1,"id":2}'), {
      _tag: "Call",
      method: "b",
      params: undefined,
      id: 2
    })
  })

  it.effect("is run as a batch until its answers exceed one line, and the rest is refused", () =>
    Effect.gen(function* () {
      const ran: Array<unknown> = []
      const request = (id: number | undefined) => ({ jsonrpc: "2.0", method: "list", id })
      const batch = JSON.stringify([
        ...Array.from({ length: 40 }, (_, id) => request(id)),
        request(undefined)
      ])
      const line = yield* answer(batch, ({ id }) => {
        ran.push(id)
        return Effect.succeed("x".repeat(1024 * 1024))
      })
      assert.deepStrictEqual(
        ran,
        Array.from({ length: 16 }, (_, id) => id)
      )
      assert.deepStrictEqual(
        JSON.parse(line ?? "")
          .slice(16)
          .map(({ id, error }: { id: number; error: unknown }) => [id, error]),
        Array.from({ length: 24 }, (_, index) => [
          16 + index,
          {
            code: -32600,
            message: "Invalid Request",
            data: {
              detail: "the answers to a batch must be at most 16777216 characters; this one was not run"
            }
          }
        ])
      )
    })
  )
})
