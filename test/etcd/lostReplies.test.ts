/** Replies of a real etcd that are lost on the way. */
import { connect, createServer, type Socket } from "node:net"
import { assert, describe } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { testNeeding } from "../lab/describeLab.ts"
import { startEtcd } from "../lab/Etcd.ts"
import { listening } from "../support/listening.ts"
import { until } from "../support/until.ts"
import { openAs, storeAt } from "./realEtcd.ts"

/** Passes requests on to etcd; of replies it loses as many as it is told to, and breaks the connection instead. */
const losing = Effect.fnUntraced(function* (url: string) {
  const target = new URL(url)
  const state = { losses: 0, lost: 0 }
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const etcd = connect(Number(target.port), target.hostname)
    for (const socket of [client, etcd]) {
      sockets.add(socket)
      socket
        .on("error", () => {})
        .on("close", () => {
          client.destroy()
          etcd.destroy()
        })
    }
    client.pipe(etcd)
    etcd.on("data", (reply) => {
      if (state.losses === 0) return void client.write(reply)
      state.losses--
      state.lost++
      client.destroy()
    })
  })
  const proxy = yield* listening(server)
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
    })
  )
  return { proxy, state }
})

const seen = { cell: "125", revision: 0 }
const web = [{ name: "8080", value: "web" }]

describe("a store on a real etcd", () => {
  testNeeding("holds a claim whose reply was lost, or gives it back", ["etcd", "etcdctl"], () =>
    Effect.gen(function* () {
      const { urls } = yield* startEtcd()
      const { proxy, state } = yield* losing(urls)
      const store = yield* storeAt(proxy)
      const session = yield* openAs(store, "a")
      state.losses = 1
      const { _tag, state: cell } = yield* store.claim(session, seen, web)
      assert.deepStrictEqual([_tag, state.lost, cell.claims.length], ["Claimed", 1, 1])
      yield* store.release(cell.claims)

      const hasty = yield* storeAt(proxy, Duration.millis(300))
      state.losses = Number.POSITIVE_INFINITY
      const error = yield* Effect.flip(hasty.claim(session, cell, web))
      assert.include(error, { _tag: "ClusterError", mayBeDone: true })
      const direct = yield* storeAt(urls)
      yield* until(direct.readCell("125"), ({ claims }) => claims.length === 1)
      state.losses = 0
      yield* until(direct.readCell("125"), ({ claims }) => claims.length === 0)
    })
  )
})
