import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { PortMapper } from "../../src/mapper/PortMapper.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { type Row, type Told, table } from "./table.ts"
import { type Asked, type Transport, transports } from "./transports.ts"

const askedOf = ({ method, body, owner }: Pick<Row, "method" | "body" | "owner">): Asked => ({
  method,
  body: Buffer.from(body, "latin1"),
  owner
})

/** Each row has its own driver, so that none depends on another. */
const run = (row: Row, { open }: Transport): Effect.Effect<Told> =>
  Effect.gen(function* () {
    const ask = yield* open
    for (const [method, body] of row.before ?? []) {
      const got = yield* ask(askedOf({ method, body }))
      assert.strictEqual(got.outcome, "answer")
    }
    return yield* ask(askedOf(row))
  }).pipe(
    Effect.scoped,
    Effect.provide(row.driver === undefined ? PortMapper.layerMemory() : Layer.succeed(Driver, row.driver)),
    Effect.orDie
  )

describe("every transport gives the same answers", () => {
  for (const row of table) {
    it.live(row.name, () =>
      Effect.gen(function* () {
        const able = transports.filter(({ cannot }) => cannot(row) === undefined)
        assert.isAbove(able.length, 1, transports.map(({ cannot }) => cannot(row)).join("; "))
        const answers = yield* Effect.forEach(able, (transport) =>
          Effect.map(run(row, transport), (got) => ({ ...got, transport: transport.name }))
        )
        const { expected } = row
        const spoken = answers.find(({ ownWords }) => ownWords !== true)
        const message = expected.message ?? spoken?.message
        const issues = expected.issues ?? answers.find(({ issues }) => issues !== undefined)?.issues
        for (const got of answers) {
          const { transport } = got
          assert.strictEqual(got.outcome, expected.outcome, `${transport}: ${got.message}`)
          if (got.ownWords !== true) assert.strictEqual(got.message, message, transport)
          if (got.issues !== undefined) assert.deepStrictEqual(got.issues, issues, transport)
        }
      })
    )
  }
})

describe("the table", () => {
  it("lists each row that a transport can't express, with the reason", () => {
    const reasons = new Set(
      transports.flatMap(({ name, cannot }) =>
        table.flatMap((row) => {
          const reason = cannot(row)
          return reason === undefined || reason.startsWith("needs ") ? [] : [`${name}: ${reason}`]
        })
      )
    )
    assert.deepStrictEqual([...reasons].sort(), [
      "CNI, handed over: a container is published, or ends, and asks for nothing else",
      "CNI, handed over: a port mapping has an exact port and addresses",
      "CNI, handed over: does not call the plugin where nothing is published",
      "CNI, handed over: the labels are the adapter's",
      "CNI, handed over: the request is put together by the adapter",
      "CNI: a container is published, or ends, and asks for nothing else",
      "CNI: a port mapping has an exact port and addresses",
      "CNI: does not call the plugin where nothing is published",
      "CNI: the labels are the adapter's",
      "CNI: the request is put together by the adapter",
      "labels: a container is published, or ends, and asks for nothing else",
      "labels: a port mapping has an exact port and addresses",
      "labels: does not call the plugin where nothing is published",
      "labels: the labels are the adapter's",
      "labels: the request is put together by the adapter",
      "memory, text: a method that is not there can't be called",
      "memory, text: there is no limit in process",
      "memory, values: a method that is not there can't be called",
      "memory, values: a value has no other spelling of its numbers",
      "memory, values: an object has no equal keys",
      "memory, values: there is no limit in process",
      "memory, values: there is no value of no text",
      "memory, values: what is no JSON is no value",
      "stdio: an empty body is params left out, which has words of its own",
      "stdio: what is no JSON breaks the envelope around it"
    ])
  })
})
