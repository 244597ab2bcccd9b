/**
 * Runs in its own process: the store on a file system that fills up, in the given folder. Prints what happened, a line
 * each; the file system is a small one, mounted for this process alone.
 */
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Effect, Exit, Layer, Scope } from "effect"
import * as SqliteMappingStore from "../../adapters/node/SqliteMappingStore.ts"
import { MappingStore } from "../../src/mapper/MappingStore.ts"
import { mapping, records } from "./mappings.ts"

const directory = Path.join(process.argv[2] ?? "", "state")
const other = Path.join(process.argv[2] ?? "", "other")
const numbered = (port: number) => mapping("tcp 0.0.0.0 172.17.0.2:80", port)
const print = (...words: ReadonlyArray<unknown>) => console.log(words.join(" "))

const life = <A, E>(use: (store: MappingStore["Service"]) => Effect.Effect<A, E>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.make()
    const context = yield* Layer.buildWithScope(SqliteMappingStore.layer(directory), scope)
    const result = yield* Effect.provideContext(MappingStore.use(use), context)
    yield* Scope.close(scope, Exit.void)
    return result
  })

const outcome = <E extends { readonly message: string }>(what: string, effect: Effect.Effect<unknown, E>) =>
  Effect.match(effect, {
    onFailure: (error) => print(what, "refused:", error.message),
    onSuccess: () => print(what, "done")
  })

/** Another file takes all remaining space. */
const fillUp = () => {
  const file = Fs.openSync(other, "a")
  try {
    for (const size of [65536, 4096, 1]) {
      try {
        while (true) Fs.writeSync(file, Buffer.alloc(size))
      } catch {
        // The next smaller size may still fit.
      }
    }
  } finally {
    Fs.closeSync(file)
  }
}

const program = Effect.gen(function* () {
  const filled = yield* life((store) =>
    Effect.gen(function* () {
      let port = 1
      while (true) {
        const put = yield* Effect.result(store.put(records([numbered(port)], "applied")))
        if (put._tag === "Failure") {
          print("full:", put.failure.reason, put.failure.message)
          break
        }
        yield* store.put(records([numbered(port)], "answered"))
        port++
      }
      print("more than a thousand:", port > 1000)
      yield* store.put(records([numbered(port)], "applied")).pipe((again) => outcome("another", again))
      fillUp()
      for (const part of [1, 2, 3]) {
        yield* outcome(`confirming ${part}`, store.put(records([numbered(part)], "answered")))
        yield* outcome(`removing ${part}`, store.remove([numbered(part + 10)]))
      }
      let removed = 0
      for (let gone = 20; gone < 1000; gone++) {
        const result = yield* Effect.result(store.remove([numbered(gone)]))
        if (result._tag === "Success") removed++
      }
      print("removed", removed)
      yield* outcome("the Engine's start", store.putEngine({ epoch: 1, activated: false }))
      return port - 1 - 3 - removed
    })
  )
  fillUp()
  yield* life((store) =>
    Effect.gen(function* () {
      const { mappings, engine, lost } = yield* store.load
      print("found again:", mappings.length === filled, engine.epoch, lost)
      yield* outcome("a new one", store.put(records([numbered(60_000)], "applied")))
      yield* outcome("removing", store.remove([numbered(1)]))
      Fs.rmSync(other)
      yield* outcome("a new one", store.put(records([numbered(60_000)], "applied")))
    })
  )
  execFileSync("mount", ["-o", "remount,ro", process.argv[2] ?? ""])
  yield* outcome(
    "opening it read-only",
    life((store) => store.load)
  )
})

await Effect.runPromise(program)
