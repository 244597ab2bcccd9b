/** `Etcd` over the JSON gateway of a real one. */
import { Effect, Layer, Result } from "effect"
import {
  type ClusterError,
  Etcd,
  HistoryLost,
  LeaseLost,
  mayWrite,
  type Transaction
} from "../../src/cluster/Etcd.ts"
import type { TlsFileError } from "../node/HttpClient.ts"
import { type EtcdAnswer, isLeaseUnknown, isRevisionUnknown, refused } from "./EtcdFailures.ts"
import { type EtcdGateway, makeGateway } from "./EtcdGateway.ts"
import {
  decodeGranted,
  decodeKeptAlive,
  decodeLeaseState,
  decodePage,
  decodeTransaction,
  type EtcdRequest,
  grantBody,
  leaseBody,
  leaseStateBody,
  pageBody,
  transactionBody,
  transactPath
} from "./EtcdMessages.ts"
import type { EtcdOptions } from "./EtcdOptions.ts"
import { watch } from "./EtcdWatch.ts"

/** Sends nothing before its first use. Fails if a TLS file can't be read. */
export const layer = (options: EtcdOptions): Layer.Layer<Etcd, TlsFileError> =>
  Layer.effect(Etcd, Effect.map(makeGateway(options), makeClient))

const makeClient = (gateway: EtcdGateway): Etcd["Service"] => {
  /** `meaning` of what etcd says no with; without one it is an error. */
  const ask = <A, E = never>(
    request: EtcdRequest<A>,
    meaning: (answer: EtcdAnswer) => Effect.Effect<A, E> | undefined = () => undefined
  ): Effect.Effect<A, ClusterError | E> =>
    Effect.catchTag(
      gateway.ask(request),
      "EtcdAnswer",
      (answer): Effect.Effect<A, ClusterError | E> => meaning(answer) ?? Effect.fail(refused(answer))
    )

  return Etcd.of({
    transact: (transaction) =>
      ask(
        {
          path: transactPath,
          body: transactionBody(transaction),
          decode: decodeTransaction,
          writes: mayWrite(transaction)
        },
        (answer) =>
          isLeaseUnknown(answer) ? Effect.fail(new LeaseLost({ lease: leaseOf(transaction) })) : undefined
      ),
    page: (prefix, options) =>
      ask(
        {
          path: "/v3/kv/range",
          body: pageBody(prefix, options),
          decode: decodePage(options.revision),
          isLong: true
        },
        (answer) =>
          isRevisionUnknown(answer)
            ? Effect.fail(new HistoryLost({ revision: options.revision ?? 0 }))
            : undefined
      ),
    watch: (prefix, revision) => watch(gateway, prefix, revision),
    grant: (ttl) =>
      ask({ path: "/v3/lease/grant", body: grantBody(ttl), decode: decodeGranted, writes: true }),
    keepAlive: (lease) =>
      ask({
        path: "/v3/lease/keepalive",
        body: leaseBody(lease),
        decode: decodeKeptAlive,
        writes: true
      }).pipe(Effect.flatMap((lives) => (lives ? Effect.void : Effect.fail(new LeaseLost({ lease }))))),
    revoke: (lease) =>
      ask(
        {
          path: "/v3/lease/revoke",
          body: leaseBody(lease),
          decode: () => Result.void,
          writes: true
        },
        (answer) => (isLeaseUnknown(answer) ? Effect.void : undefined)
      ),
    leaseState: (lease) =>
      ask({
        path: "/v3/lease/timetolive",
        body: leaseStateBody(lease),
        decode: decodeLeaseState,
        isLong: true
      }),
    counts: Effect.sync(() => ({ ...gateway.counts, failures: { ...gateway.counts.failures } }))
  })
}

/** The first that a key is put on: of several that etcd may mean, the one that all our transactions name. */
const leaseOf = ({ success }: Transaction): string => {
  for (const operation of success) {
    if (operation._tag === "Put" && operation.lease !== undefined) return operation.lease
    const nested = operation._tag === "Transaction" ? leaseOf(operation.transaction) : ""
    if (nested !== "") return nested
  }
  return ""
}
