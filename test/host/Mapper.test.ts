import { assert, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger } from "effect"
import { mapperLayer } from "../../adapters/host/Mapper.ts"
import { makeNamespaceLock, type NamespaceLock } from "../../adapters/linux/nft/NamespaceLock.ts"
import { FirewallError } from "../../src/firewall/Firewall.ts"
import type { Mode } from "../../src/mapper/model/Labels.ts"
import { Driver } from "../../src/protocol/Driver.ts"
import { describeInNamespace, run } from "../lab/ThreadNamespace.ts"
import { temporaryFolder } from "../support/folders.ts"
import { group } from "../support/groups.ts"

/** Builds the mapper; returns it with what it has logged. */
const built = Effect.fnUntraced(function* (mode: Mode | undefined, lock?: NamespaceLock) {
  const logged: Array<string> = []
  const options = { ephemeral: undefined, acceptMark: undefined, udpIdle: undefined, mode, lock }
  const stateDirectory = yield* temporaryFolder
  const mapper = yield* Layer.build(Layer.fresh(mapperLayer({ ...options, stateDirectory }))).pipe(
    Effect.provide(Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))]))
  )
  return { logged, driver: Context.get(mapper, Driver) }
})

describeInNamespace("the mode of a host", () => {
  const tables = () => run("nft list tables")

  /** The kernel's tables can't be changed; says whether the lock was let go. */
  const denied = () => {
    const error = new FirewallError({ reason: "Denied", operation: "locking", detail: "not permitted" })
    let isHeld = true
    const release = () => {
      isHeld = false
    }
    return { take: Effect.fail(error), descriptor: () => undefined, release, isReleased: () => !isHeld }
  }

  it.live("is nat where the kernel's table can be changed, and a second mapper is refused", () =>
    Effect.gen(function* () {
      const { logged } = yield* built(undefined)
      assert.deepStrictEqual(logged, ["mode nat"])
      assert.include(tables(), "table inet portmapper\n")
      const second = yield* Effect.flip(built(undefined))
      assert.match(second.message, /^process \d+ keeps the table inet portmapper /)
    })
  )

  it.live("is proxy where it can't, with the reason, which a start or a call in mode nat fails with", () =>
    Effect.gen(function* () {
      const lock = denied()
      const { logged, driver } = yield* built(undefined, lock)
      const reason = "locking failed: not permitted"
      assert.deepStrictEqual(logged, [`mode proxy, since nat is not available: ${reason}`])
      assert.isTrue(lock.isReleased())
      const asked = group("8080", ["tcp 0.0.0.0 172.17.0.2:80"], { "portmapper.mode": "nat" })
      assert.include((yield* Effect.flip(Effect.scoped(driver.mapPorts(asked)))).message, reason)
      const error = yield* Effect.flip(built("nat", denied()))
      assert.deepStrictEqual(
        [error._tag, error.message],
        ["NatUnavailable", `serving in mode nat: ${reason}`]
      )
    })
  )

  it.live("is the one that is requested, without a table or a lock where that is not nat", () =>
    Effect.gen(function* () {
      const before = tables()
      const lock = yield* makeNamespaceLock()
      yield* lock.take
      const { logged } = yield* built("proxy", lock)
      assert.deepStrictEqual([logged, tables()], [["mode proxy"], before])
      assert.isUndefined(lock.descriptor())
    })
  )
})
