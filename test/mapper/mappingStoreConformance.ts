/** The contract of every `MappingStore`; run against each implementation. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { MappingStore, type Stored, type StoreError } from "../../src/mapper/MappingStore.ts"
import { type Mapping, mappingKey } from "../../src/mapper/model/Mapping.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { mapping, records, storedTexts } from "../support/mappings.ts"

const web = mapping("tcp 0.0.0.0 172.17.0.2:80", 8080)
const dns = mapping("udp 10.99.0.1 172.17.0.2:53", 53)

/** Everything that a request can carry. */
export const remarkable: ReadonlyArray<Mapping> = [
  web,
  dns,
  mapping("sctp :: [fd00::2]:80", 1, { mode: "proxy", owner: "cni:0123/eth0", epoch: 7, container: "e 1" }),
  mapping("tcp fe80::1%eth0 [fe80::2%br-é]:65535", 65535),
  mapping("tcp - 172.17.0.2:80", 8081),
  mapping("tcp ::ffff:10.0.0.1 [::ffff:172.17.0.2]:80", 8082),
  mapping("tcp 0.0.0.0 172.17.0.2:80", 0, { mode: "routed", owner: "session" }),
  mapping("tcp 127.0.0.1 172.17.0.2:80", 8083, {
    mode: "engine",
    labels: new Map([
      ["__proto__", "polluted"],
      ["constructor", ""],
      ["", "an empty name"],
      ["über.straße", "日本語 \u{1f433} \u0000 \ud800"],
      ['quote"\\', "line\nbreak"]
    ]),
    sinceMillis: Number.MAX_SAFE_INTEGER
  })
]

export const mappingStoreConformance = <R>(
  name: string,
  layer: () => Layer.Layer<MappingStore | R, StoreError>
) => {
  const test = (title: string, effect: Effect.Effect<void, StoreError, MappingStore>) =>
    it.effect(title, () => Effect.suspend(() => Effect.provide(effect, layer())))

  describe(`${name} as a MappingStore`, () => {
    test(
      "is empty at first",
      Effect.gen(function* () {
        const store = yield* MappingStore
        assert.deepStrictEqual(yield* store.load, {
          mappings: [],
          engine: { epoch: 0, activated: false },
          lost: undefined
        })
      })
    )

    test(
      "returns every field as it was put",
      Effect.gen(function* () {
        const store = yield* MappingStore
        yield* store.put(records(remarkable, "answered"))
        const { mappings } = yield* store.load
        assert.deepStrictEqual(
          byKey(mappings),
          byKey(remarkable.map((each) => ({ mapping: each, state: "answered" })))
        )
      })
    )

    test(
      "keeps standbys beside the mapping of their frontend, and puts one in its place in one change",
      Effect.gen(function* () {
        const store = yield* MappingStore
        const standby = (text: string) => mapping(text, 8080, { owner: "cni:web/eth1", standby: true })
        const [one, other] = [standby("tcp 0.0.0.0 172.18.0.2:80"), standby("tcp 0.0.0.0 172.19.0.2:80")]
        yield* store.put(records([web, one, other], "answered"))
        assert.deepStrictEqual(
          byKey((yield* store.load).mappings),
          byKey(records([web, one, other], "answered"))
        )
        const { standby: _, ...instead } = one
        yield* store.remove([web, one], records([instead], "answered"))
        assert.deepStrictEqual(
          byKey((yield* store.load).mappings),
          byKey(records([instead, other], "answered"))
        )
      })
    )

    test(
      "replaces a mapping by its key",
      Effect.gen(function* () {
        const store = yield* MappingStore
        yield* store.put(records([web, dns], "applied"))
        const other: Mapping = {
          ...web,
          backend: { address: addressUnsafe("172.17.0.3"), port: 81 },
          mode: "proxy",
          labels: new Map([["portmapper.mode", "proxy"]]),
          owner: "cli",
          epoch: 3,
          sinceMillis: 4,
          container: "engine 0123"
        }
        yield* store.put(records([other], "applied"))
        const { mappings } = yield* store.load
        assert.deepStrictEqual(
          byKey(mappings),
          byKey([
            { mapping: other, state: "applied" },
            { mapping: dns, state: "applied" }
          ])
        )
      })
    )

    test(
      "has each mapping in the last state put, with several states in one change",
      Effect.gen(function* () {
        const store = yield* MappingStore
        for (const [state, other] of [
          ["applied", "answered"],
          ["answered", "applied"]
        ] as const) {
          yield* store.put([...records([web], state), ...records([dns], other)])
          assert.deepStrictEqual(storedTexts((yield* store.load).mappings), [
            `0.0.0.0:8080/tcp -> 172.17.0.2:80 ${state}`,
            `10.99.0.1:53/udp -> 172.17.0.2:53 ${other}`
          ])
        }
      })
    )

    test(
      "has the last mapping put, after any puts and removals",
      Effect.gen(function* () {
        const store = yield* MappingStore
        const other: Mapping = { ...web, backend: { address: addressUnsafe("172.17.0.3"), port: 81 } }
        const kept = Effect.map(store.load, ({ mappings }) => storedTexts(mappings))
        yield* store.put(records([web], "applied"))
        yield* store.put(records([other], "applied"))
        yield* store.put(records([web], "applied"))
        assert.deepStrictEqual(yield* kept, ["0.0.0.0:8080/tcp -> 172.17.0.2:80 applied"])
        yield* store.put(records([web, dns], "answered"))
        yield* store.put(records([other, dns], "applied"))
        yield* store.put(records([web, dns], "applied"))
        assert.deepStrictEqual(yield* kept, [
          "0.0.0.0:8080/tcp -> 172.17.0.2:80 applied",
          "10.99.0.1:53/udp -> 172.17.0.2:53 applied"
        ])
        yield* store.remove([web])
        yield* store.put(records([web], "applied"))
        yield* store.put(records([web], "answered"))
        assert.deepStrictEqual(yield* kept, [
          "0.0.0.0:8080/tcp -> 172.17.0.2:80 answered",
          "10.99.0.1:53/udp -> 172.17.0.2:53 applied"
        ])
      })
    )

    test(
      "removes mappings, and succeeds for one that is not there",
      Effect.gen(function* () {
        const store = yield* MappingStore
        yield* store.put(records(remarkable, "applied"))
        yield* store.remove([web, dns])
        yield* store.remove([web, mapping("tcp :: [fd00::2]:80", 9)])
        assert.strictEqual((yield* store.load).mappings.length, remarkable.length - 2)
        yield* store.remove(remarkable)
        assert.deepStrictEqual((yield* store.load).mappings, [])
      })
    )

    test(
      "changes nothing for no mappings",
      Effect.gen(function* () {
        const store = yield* MappingStore
        yield* store.put([])
        yield* store.remove([])
        assert.deepStrictEqual((yield* store.load).mappings, [])
      })
    )

    test(
      "keeps the Engine's starts",
      Effect.gen(function* () {
        const store = yield* MappingStore
        yield* store.putEngine({ epoch: 3, activated: true })
        assert.deepStrictEqual((yield* store.load).engine, { epoch: 3, activated: true })
        yield* store.putEngine({ epoch: 4, activated: false })
        assert.deepStrictEqual((yield* store.load).engine, { epoch: 4, activated: false })
      })
    )
  })
}

const byKey = (stored: ReadonlyArray<Stored>) =>
  Object.fromEntries(stored.map((each) => [mappingKey(each.mapping), each]))
