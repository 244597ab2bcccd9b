/** The `fetch` handler on a runtime that is not Node, compared with the same handler in this process. */
import * as Path from "node:path"
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { temporaryFolder } from "../support/folders.ts"
import { mapRequest } from "../support/requests.ts"
import { bundle, serveWorker } from "../support/workerd.ts"
import { table } from "../transports/table.ts"
import rows from "./rows.ts"

class Workerd extends Context.Service<Workerd, string>()("test/Workerd") {
  static readonly layer = Layer.effect(
    Workerd,
    Effect.gen(function* () {
      const source = yield* bundle({ entryPoints: [Path.join(import.meta.dirname, "rows.ts")] })
      return yield* serveWorker(source, { classes: { SLOW: "Slow" }, folder: yield* temporaryFolder })
    })
  )
}

const requestOf = (url: string, index: number, [method, body, owner]: Asked): Request =>
  new Request(`${url}/${index}/${method}`, {
    method: "POST",
    body: Uint8Array.from(body, (character) => character.charCodeAt(0)),
    headers: owner === undefined ? {} : { "Portmapper-Owner": owner }
  })

type Asked = readonly [method: string, body: string, owner?: string | undefined]

const answered = async (response: Response) => ({
  status: response.status,
  contentType: response.headers.get("content-type"),
  body: await response.text()
})

layer(Workerd.layer)("the fetch handler on workerd", (it) => {
  it.effect("has no global of Node to fall back on", () =>
    Effect.gen(function* () {
      const url = yield* Workerd
      const names = yield* Effect.promise(async () => (await fetch(url)).json())
      assert.deepStrictEqual(names, [])
    })
  )

  it.effect("serves concurrent calls that wait for each other, in a Durable Object", () =>
    Effect.gen(function* () {
      const url = yield* Workerd
      const ports = Array.from({ length: 20 }, (_, index) => 8000 + index)
      const statuses = yield* Effect.forEach(
        ports,
        (port) =>
          Effect.promise(async () => {
            const body = JSON.stringify(mapRequest(port))
            return (await fetch(`${url}/slow/PortMapper.MapPorts`, { method: "POST", body })).status
          }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        statuses,
        ports.map(() => 200)
      )
    })
  )

  for (const [index, { name, method, body, owner, before = [] }] of table.entries())
    it.effect(`answers as on Node: ${name}`, () =>
      Effect.gen(function* () {
        const url = yield* Workerd
        for (const asked of [...before, [method, body, owner] as const]) {
          const there = yield* Effect.promise(async () => answered(await fetch(requestOf(url, index, asked))))
          const here = yield* Effect.promise(async () =>
            answered(await rows.fetch(requestOf("http://plugin.example", index, asked)))
          )
          assert.deepStrictEqual(there, here)
        }
      })
    )
})
