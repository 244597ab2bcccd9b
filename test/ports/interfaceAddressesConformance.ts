/** What every implementation of `InterfaceAddresses` must do. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer, Queue, Stream } from "effect"
import { InterfaceAddresses, type Interfaces } from "../../src/ports/InterfaceAddresses.ts"

/** Changes the implementation's host; addresses are without prefix lengths. */
export interface InterfaceChanges<R> {
  readonly add: (name: string, addresses: ReadonlyArray<string>) => Effect.Effect<void, never, R>
  readonly remove: (name: string) => Effect.Effect<void, never, R>
}

/** The addresses of one interface, sorted. */
const of = (name: string) => (interfaces: Interfaces) =>
  interfaces
    .get(name)
    ?.map(({ text }) => text)
    .sort()

/** The layer's host has no interfaces whose names begin with `test`. */
export const interfaceAddressesConformance = <R>(
  title: string,
  layer: Layer.Layer<InterfaceAddresses | R>,
  { add, remove }: InterfaceChanges<R>
): void => {
  describe(title, () => {
    const test = (
      name: string,
      body: (service: InterfaceAddresses["Service"]) => Effect.Effect<void, unknown, R>
    ) => it.live(name, () => Effect.provide(Effect.flatMap(InterfaceAddresses, body), layer))

    test("returns the addresses of both families, none, or no interface", ({ current }) =>
      Effect.gen(function* () {
        const now = (name: string) => Effect.map(current, of(name))
        assert.isUndefined(yield* now("test0"))
        yield* add("test0", [])
        assert.deepStrictEqual(yield* now("test0"), [])
        yield* add("test0", ["10.77.0.1", "10.77.0.2", "fd77::1"])
        assert.deepStrictEqual(yield* now("test0"), ["10.77.0.1", "10.77.0.2", "fd77::1"])
        yield* remove("test0")
        assert.isUndefined(yield* now("test0"))
      }))

    test("reports what is there first, then every state that lasts", ({ changes }) =>
      Effect.gen(function* () {
        const states = yield* Queue.unbounded<ReadonlyArray<string> | undefined>()
        const until = (expected: ReadonlyArray<string> | undefined) =>
          Effect.gen(function* () {
            for (;;) if (JSON.stringify(yield* Queue.take(states)) === JSON.stringify(expected)) return
          })
        yield* add("test1", ["10.78.0.1"])
        yield* Effect.forkScoped(
          Stream.runForEach(changes, (interfaces) => Queue.offer(states, of("test1")(interfaces)))
        )
        assert.deepStrictEqual(yield* Queue.take(states), ["10.78.0.1"])
        yield* add("test1", ["10.78.0.1", "fd78::1"])
        yield* until(["10.78.0.1", "fd78::1"])
        yield* remove("test1")
        yield* until(undefined)
        yield* add("test1", ["10.78.0.2"])
        yield* until(["10.78.0.2"])
        yield* remove("test1")
        yield* until(undefined)
      }).pipe(Effect.scoped))

    test("reports no change where there was none", ({ changes }) =>
      Effect.gen(function* () {
        const texts = yield* Queue.unbounded<string>()
        yield* Effect.forkScoped(
          Stream.runForEach(changes, (interfaces) =>
            Queue.offer(texts, JSON.stringify([...interfaces].map(([name]) => [name, of(name)(interfaces)])))
          )
        )
        yield* add("test2", ["10.79.0.1"])
        yield* add("test2", ["10.79.0.1"])
        yield* add("test3", ["10.80.0.1"])
        const seen: Array<string> = []
        while (!seen.at(-1)?.includes("10.80.0.1")) seen.push(yield* Queue.take(texts))
        for (const [index, text] of seen.entries()) assert.notStrictEqual(text, seen[index - 1])
        yield* remove("test2")
        yield* remove("test3")
      }).pipe(Effect.scoped))
  })
}
