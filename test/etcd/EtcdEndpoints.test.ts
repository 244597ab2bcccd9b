import { assert, describe } from "@effect/vitest"
import { Effect, Result } from "effect"
import { checkEndpoints, parseEndpoints } from "../../adapters/etcd/index.ts"
import { testNeeding } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"
import { patienceMillis } from "../lab/patience.ts"
import { deadEndpoint } from "./asking.ts"

describe("the endpoints of etcd", () => {
  testNeeding("says of each whether it answers, and how it is", ["etcd"], () =>
    Effect.gen(function* () {
      const { urls } = yield* startEtcd()
      const dead = yield* deadEndpoint
      const endpoints = Result.getOrThrow(parseEndpoints(`${dead},${urls}`))
      const [first, second] = yield* checkEndpoints({ endpoints, timeoutMillis: patienceMillis })
      assert.strictEqual(
        first !== undefined && Result.isFailure(first) ? first.failure.message : "",
        `etcd at ${dead}: no process is listening there`
      )
      const status = second !== undefined && Result.isSuccess(second) ? second.success : undefined
      assert.include(status, { hasLeader: true, endpoint: urls })
      assert.match(status?.version ?? "", /^3\.\d+\.\d+$/)
      // One machine has one clock.
      assert.isAtMost(Math.abs(status?.skewMillis ?? Number.POSITIVE_INFINITY), patienceMillis)
    })
  )
})
