import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { startWatch } from "../../adapters/engine/Watch.ts"
import { MemoryEngine } from "../engine/MemoryEngine.ts"
import { socketFor } from "../support/socket.ts"
import { asking, done, failed, watchServices, withMemory } from "./asking.ts"

describe("drain and undrain", () => {
  it.live("take a backend by its address or its container's name, and print what leads to it", () =>
    withMemory(
      Effect.gen(function* () {
        const engine = yield* MemoryEngine
        yield* engine.run({ name: "web" })
        const ask = asking(yield* socketFor(yield* startWatch({ trustImageLabels: false })))
        yield* ask("map -p 0.0.0.0:8080-8081:80-81 --to web")
        yield* ask("map -p 0.0.0.0:8082:80 --to 172.17.0.3")
        const states = Effect.map(ask("ls --json"), ({ stdout }) =>
          (JSON.parse(stdout) as { Mappings: ReadonlyArray<{ State: string }> }).Mappings.map(
            ({ State }) => State
          )
        )
        assert.deepStrictEqual(
          yield* ask("drain web"),
          done("drained 0.0.0.0:8080-8081/tcp -> 172.17.0.2:80-81")
        )
        assert.deepStrictEqual(yield* states, ["drained", "drained", "live"])
        assert.deepStrictEqual(
          yield* ask("undrain 172.17.0.2 -p 8081"),
          done("undrained 0.0.0.0:8081/tcp -> 172.17.0.2:81")
        )
        assert.deepStrictEqual(yield* states, ["drained", "live", "live"])
        assert.deepStrictEqual(
          yield* ask("drain db"),
          failed("draining db failed: nothing leads to db; there are 172.17.0.2 (web), 172.17.0.3")
        )
        assert.deepStrictEqual(
          yield* ask("drain web -p 9"),
          failed("draining web failed: 9 does not lead to web, which has 0.0.0.0:8080/tcp, 0.0.0.0:8081/tcp")
        )
        assert.deepStrictEqual(
          yield* ask("drain 172.17.0.3 --json"),
          done(
            '{"Mappings":[{"Proto":6,"FrontendIP":"0.0.0.0","FrontendPort":8082,"BackendIP":"172.17.0.3","BackendPort":80}]}'
          )
        )
      }).pipe(Effect.provide(watchServices))
    )
  )
})
