import { assert, describe, it } from "@effect/vitest"
import { openDatabaseUnsafe } from "../../adapters/node/Sqlite.ts"

describe("openDatabaseUnsafe", () => {
  it("suppresses the notice of an experimental SQLite, and no other warning", async () => {
    const { emitWarning, getBuiltinModule } = process
    const warnings: Array<string> = []
    const listen = ({ message }: Error) => void warnings.push(message)
    process.on("warning", listen)
    process.getBuiltinModule = (id: string) => {
      process.emitWarning(
        "SQLite is an experimental feature and might change at any time",
        "ExperimentalWarning"
      )
      process.emitWarning("Something else is experimental", "ExperimentalWarning")
      process.emitWarning("SQLite is old", "DeprecationWarning")
      return Reflect.apply(getBuiltinModule, process, [id])
    }
    try {
      openDatabaseUnsafe(":memory:").close()
    } finally {
      process.getBuiltinModule = getBuiltinModule
    }
    await new Promise(setImmediate)
    process.off("warning", listen)
    assert.deepStrictEqual(warnings, ["Something else is experimental", "SQLite is old"])
    assert.strictEqual(process.emitWarning, emitWarning)
  })
})
