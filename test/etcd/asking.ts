import { createServer } from "node:net"
import { Effect } from "effect"
import type { EtcdOptions } from "../../adapters/etcd/index.ts"
import { Etcd } from "../../src/cluster/Etcd.ts"
import { listening } from "../support/listening.ts"
import { clientOf } from "./realEtcd.ts"

type Service = Etcd["Service"]

export const prefix = "/portmapper/default/"
export const key = `${prefix}cells/1/x`

/** Runs `ask` with a client of its own. */
export const asking = <A, E>(
  urls: string,
  ask: (etcd: Service) => Effect.Effect<A, E>,
  options: Partial<EtcdOptions> = {}
) => Effect.provide(Effect.flatMap(Etcd, ask), clientOf(urls, options))

export const read = (etcd: Service) =>
  Effect.map(etcd.page(prefix, { limit: 10 }), ({ entries }) => entries.length)

export const put =
  (at: string, value = "") =>
  (etcd: Service) =>
    etcd.transact({ compare: [], success: [{ _tag: "Put", key: at, value }] })

export const message = <A, E extends { readonly message: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.message)

/** A port on which nothing listens any more. */
export const deadEndpoint = Effect.scoped(listening(createServer()))

/** Accepts, and says nothing. */
export const hangingEndpoint = Effect.suspend(() => {
  const sockets = new Set<{ destroy: () => void }>()
  const server = createServer((socket) => void sockets.add(socket))
  return Effect.acquireRelease(listening(server), () =>
    Effect.sync(() => {
      for (const socket of sockets) socket.destroy()
    })
  )
})
