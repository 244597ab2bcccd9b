import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Queue, type Scope } from "effect"
import { cellOf, claimOf, portClaim } from "../../src/cluster/Cells.ts"
import { clusterAllocator } from "../../src/cluster/ClusterAllocator.ts"
import type { Member } from "../../src/cluster/Member.ts"
import { MemoryEtcd } from "../../src/cluster/MemoryEtcd.ts"
import { Steps } from "../../src/memory/Steps.ts"
import { PortAllocator, type ReserveOptions } from "../../src/ports/PortAllocator.ts"
import { addressUnsafe } from "../../src/protocol/Address.ts"
import { ports } from "../support/groups.ts"
import { memberOf, pass } from "./twoStores.ts"

const claimant = { owner: "engine", backend: "172.17.0.2:80", container: undefined, service: undefined }
const tcp = (port: number) => ({ protocol: "tcp", port }) as const
const claim = (port: number, host = "a") => ({
  ...claimOf(host, portClaim(tcp(port), claimant, 0)),
  ...{ cell: cellOf(port), host, lease: "1", revision: 1 }
})

/** The allocator of host `a`, as text. */
const test = (
  title: string,
  body: (
    member: Member,
    allocator: {
      /** `8080 on 0.0.0.0`, or why not. */
      readonly reserve: (
        port: string,
        addresses: ReadonlyArray<string>,
        options?: ReserveOptions
      ) => Effect.Effect<string>
      /** So many of the holds that it gave last. */
      readonly release: (count: number) => Effect.Effect<void>
    }
  ) => Effect.Effect<void, unknown, MemoryEtcd | Scope.Scope>
) =>
  it.effect(title, () =>
    Effect.gen(function* () {
      const { member } = yield* memberOf("a")
      const allocator = clusterAllocator(member, yield* PortAllocator)
      let last: Effect.Success<ReturnType<typeof allocator.reserve>> = []
      yield* body(member, {
        reserve: (port, addresses, options = { claimant }) =>
          allocator
            .reserve(
              addresses.map((host) => ({ protocol: "tcp", host: addressUnsafe(host) })),
              ports(port),
              [],
              options
            )
            .pipe(
              Effect.match({
                onSuccess: (holds) => {
                  last = holds
                  return holds.map(({ port, host }) => `${port} on ${host.text}`).join()
                },
                onFailure: ({ message }) => message
              })
            ),
        release: (count) => Effect.suspend(() => allocator.release(last.slice(0, count)))
      })
    }).pipe(Effect.scoped, Effect.provide(Layer.merge(PortAllocator.layerMemory, MemoryEtcd.layer)))
  )

const any = ["0.0.0.0"]

describe("the allocator of a host of a cluster", () => {
  test("gives an exact port that the host has claimed, and notes it as reserved until it is released", (member, {
    reserve,
    release
  }) =>
    Effect.gen(function* () {
      member.ledger.add({ ...tcp(8000), claimant }, claim(8000))
      assert.strictEqual(
        yield* reserve("8000", ["10.0.0.1", "10.0.0.2"]),
        "8000 on 10.0.0.1,8000 on 10.0.0.2"
      )
      yield* release(1)
      yield* release(1)
      assert.isTrue(member.ledger.isReserved(tcp(8000)))
      yield* release(2)
      assert.isFalse(member.ledger.isReserved(tcp(8000)))
    }))

  test("refuses one that it has not, with the host that has it as far as is known", (member, { reserve }) =>
    Effect.gen(function* () {
      const refused = "bind for 0.0.0.0:8000/tcp failed:"
      member.isProven = false
      assert.strictEqual(
        yield* reserve("8000", any),
        `${refused} the port can't be claimed in the cluster: this host does not know yet which ports are still its own`
      )
      member.replica.put({ cell: "0125", revision: 1, readAt: 1, claims: [claim(8000, "b")] })
      assert.strictEqual(
        yield* reserve("8000", any),
        `${refused} port is already allocated (held by host b for 172.17.0.2:80, owner engine)`
      )
    }))

  test("leaves to the host what is on loopback alone, or has no claimant", (member, { reserve }) =>
    Effect.gen(function* () {
      assert.strictEqual(yield* reserve("8000", ["127.0.0.1"]), "8000 on 127.0.0.1")
      assert.strictEqual(yield* reserve("8001", any, {}), "8001 on 0.0.0.0")
      assert.match(
        yield* reserve("8002", ["127.0.0.1", "10.0.0.1"]),
        /^bind for 10\.0\.0\.1:8002\/tcp failed/
      )
      // They are in use of a block all the same.
      for (const port of [8000, 8001]) assert.isTrue(member.ledger.isReserved(tcp(port)))
    }))

  test("gives of the ephemeral ports those of the host's blocks, and of a range what it has claimed", (member, {
    reserve
  }) =>
    Effect.gen(function* () {
      const [first, last] = [50000, 50001]
      const block = { _tag: "Block", first, last } as const
      member.ledger.addBlock(block, { ...claim(first), ...claimOf("a", block) })
      member.ledger.add({ ...tcp(8002), claimant }, claim(8002))
      assert.deepStrictEqual(
        [yield* reserve("0", any), yield* reserve("0", any)],
        ["50000 on 0.0.0.0", "50001 on 0.0.0.0"]
      )
      assert.match(yield* reserve("0", any), /all ports are allocated/)
      assert.strictEqual(yield* reserve("8000-8003", any), "8002 on 0.0.0.0")
      assert.match(yield* reserve("8000-8003", any), /all ports are allocated in 8000-8003$/)
    }))

  test("gives nothing once the lease may have ended, and keeps what was reserved before", (member, {
    reserve
  }) =>
    Effect.gen(function* () {
      member.ledger.add({ ...tcp(8000), claimant }, claim(8000))
      yield* pass(27)
      assert.strictEqual(
        yield* reserve("8000", any),
        "bind for 0.0.0.0:8000/tcp failed: the port can't be claimed in the cluster: this host's lease may have ended"
      )
      assert.strictEqual(yield* reserve("8000", any, { claimant, isKept: true }), "8000 on 0.0.0.0")
    }))

  test("gives back what lost its claim while it was reserved, and claims again what is kept", (member, {
    reserve
  }) =>
    Effect.gen(function* () {
      const losing = Effect.provideService(Steps, () => Effect.sync(() => member.ledger.remove(tcp(8000))))
      member.ledger.add({ ...tcp(8000), claimant }, claim(8000))
      assert.strictEqual(
        yield* losing(reserve("8000", any)),
        "bind for 0.0.0.0:8000/tcp failed: the port can't be claimed in the cluster: this host's lease may have ended"
      )
      assert.isFalse(member.ledger.isReserved(tcp(8000)))
      member.ledger.add({ ...tcp(8000), claimant }, claim(8000))
      assert.strictEqual(yield* losing(reserve("8000", any, { claimant, isKept: true })), "8000 on 0.0.0.0")
      assert.deepStrictEqual(
        member.ledger.ports().map(({ port, claim }) => [port, claim]),
        [[8000, undefined]]
      )
      assert.strictEqual(yield* Queue.size(member.doubt), 1)
    }))
})
