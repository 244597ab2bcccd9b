import { spawn } from "node:child_process"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { temporaryFolder } from "../support/folders.ts"

const script = Path.join(import.meta.dirname, "../support/storeChurn.ts")
const kills = Number(process.env["PORTMAPPER_KILLS"] ?? 20)

/** A recorded mapping: the port, and `BACKEND STATE`. */
type Record = ReadonlyMap<number, string>

describe("the file of the mappings when its process is killed", () => {
  it.effect(`has every acknowledged change after ${kills} kills, and is whole`, () =>
    Effect.gen(function* () {
      const directory = yield* temporaryFolder
      let record: Record = new Map()
      let acknowledged = 0
      for (let kill = 1; kill <= kills; kill++) {
        const said = yield* Effect.promise(() => livedAndDied(directory, kill, Math.random() * 80))
        for (const line of said.filter((text) => text.startsWith("! "))) {
          record = changed(record, line.slice(2))
          acknowledged++
        }
        const last = said.at(-1) ?? ""
        const possible = [record, last.startsWith("? ") ? changed(record, last.slice(2)) : record]
        if (kill % 2 === 0) checkIntegrity(Path.join(directory, "mappings.db"))
        const found = yield* recorded(directory)
        const match = possible.find((each) => textOf(each) === textOf(found))
        if (match === undefined) assert.strictEqual(textOf(found), textOf(record), `seed ${kill}, ${last}`)
        else record = match
      }
      console.log(`${kills} kills, ${acknowledged} acknowledged changes, ${record.size} mappings left`)
      assert.isAbove(acknowledged, kills)
    })
  )
})

/** The lines that the process wrote, without a truncated last one, which no reader got. */
const livedAndDied = (directory: string, seed: number, millis: number): Promise<ReadonlyArray<string>> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, directory, `${seed}`], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    let said = ""
    child.stdout.on("data", (chunk: Buffer) => {
      if (said === "") setTimeout(() => child.kill("SIGKILL"), millis)
      said += chunk.toString()
    })
    child.on("error", reject)
    child.on("close", (_, signal) =>
      signal === "SIGKILL"
        ? resolve(said.split("\n").slice(0, -1))
        : reject(new Error(`it ended by itself: ${said.slice(-200)}`))
    )
  })

const changed = (record: Record, operation: string): Record => {
  const [what = "", ...targets] = operation.split(" ")
  const next = new Map(record)
  for (const target of targets) {
    const [port, backend] = target.split("=")
    if (what === "remove") next.delete(Number(port))
    else next.set(Number(port), `${backend} ${what}`)
  }
  return next
}

const recorded = (directory: string) =>
  Effect.gen(function* () {
    const store = yield* MappingStore
    const { mappings, lost } = yield* store.load
    assert.strictEqual(lost, undefined)
    return new Map(
      mappings.map(({ mapping, state }) => [mapping.port, `${mapping.backend.address.text} ${state}`])
    )
  }).pipe(Effect.provide(SqliteMappingStore.layer(directory)))

/** Opening it recovers it, so this is what the next process sees. */
const checkIntegrity = (path: string): void => {
  const database = new DatabaseSync(path)
  assert.deepStrictEqual({ ...database.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" })
  database.close()
}

const textOf = (record: Record): string =>
  [...record]
    .sort(([a], [b]) => a - b)
    .map(([port, rest]) => `${port} ${rest}`)
    .join("\n")
