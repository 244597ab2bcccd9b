import * as Fs from "node:fs"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { TestClock } from "effect/testing"
import { restore } from "../../src/mapper/restore/Restore.ts"
import { map } from "../support/calls.ts"
import { everything, group } from "../support/groups.ts"
import { makeLives, snapshot } from "../support/lives.ts"

/** A record that no database can be read from. The write-ahead log alone would do: it makes a damaged file whole again. */
const damage = (directory: string) => {
  const path = Path.join(directory, "mappings.db")
  Fs.rmSync(`${path}-wal`)
  Fs.writeFileSync(path, "no database".repeat(100))
  return path
}

describe("a lost record", () => {
  it.effect(
    "is read back from the redirections that the kernel still has, until their callers ask for them again",
    () =>
      Effect.gen(function* () {
        yield* TestClock.setTime(1_700_000_000_000)
        const { life, mapperLife, directory } = yield* makeLives
        const limited = group("8081", ["tcp 10.99.0.1 172.17.0.2:80"], {
          "portmapper.allow": "10.0.0.0/8,192.168.1.1",
          "portmapper.rate": "20/s"
        })
        const before = yield* life(
          Effect.gen(function* () {
            yield* map(everything)
            yield* map(limited)
            return yield* snapshot
          })
        )
        const path = damage(directory())
        assert.deepStrictEqual(yield* mapperLife(restore), {
          live: 0,
          unconfirmed: 4,
          conflicted: [],
          undone: 0,
          lost: {
            why: `${path} can't be used: it is damaged: file is not a database`,
            path: `${path}.20231114T221320000Z`
          }
        })
        const after = yield* life(snapshot)
        assert.deepStrictEqual(
          after.rules,
          before.rules.filter((rule) => rule.startsWith("Redirect "))
        )
        assert.deepStrictEqual(after.listed, [
          "0.0.0.0 8080 unknown unconfirmed",
          "0.0.0.0 8080 unknown unconfirmed",
          "10.99.0.1 8080 unknown unconfirmed",
          "10.99.0.1 8081 unknown unconfirmed"
        ])
        yield* life(
          Effect.gen(function* () {
            yield* map(everything)
            yield* map(limited)
            const confirmed = yield* snapshot
            assert.deepStrictEqual(confirmed, before)
          })
        )
        assert.deepStrictEqual(yield* life(snapshot), before)
      })
  )

  it.effect("says how many backends of services it can't read back, and undoes them", () =>
    Effect.gen(function* () {
      const { life, mapperLife, directory } = yield* makeLives
      const replica = (number: number) =>
        group("8082", [`tcp 0.0.0.0 172.17.0.${number}:80`], { "portmapper.share": "web" })
      yield* life(
        Effect.gen(function* () {
          for (const number of [2, 3]) yield* map(replica(number))
        })
      )
      damage(directory())
      const lines: Array<string> = []
      const logged = Logger.layer([Logger.make(({ message }) => void lines.push([message].flat().join(" ")))])
      const { unconfirmed, undone } = yield* Effect.provide(mapperLife(restore), logged)
      assert.deepStrictEqual({ unconfirmed, undone }, { unconfirmed: 0, undone: 2 })
      assert.match(lines.join("\n"), /\n2 backends of services could not be read back, since the kernel/)
      assert.deepStrictEqual((yield* life(snapshot)).rules, [])
    })
  )
})
